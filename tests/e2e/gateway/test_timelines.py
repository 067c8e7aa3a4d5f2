"""Timelines over sockets: the phases of attempts, and what was sent."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
from trio.testing import wait_all_tasks_blocked
from trustme import CA

from tests.support.gateway.program import Program, route, running, up
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.observe.kept_requests import KeptRequests
from umbel.observe.timeline import AttemptLine, Timeline

JSON = b"Content-Type: application/json"
OK = response(b"1", JSON)


def kept_of(program: Program) -> KeptRequests:
    kept = program.app.kept_requests()
    assert kept is not None
    return kept


def latest(program: Program) -> Timeline:
    """The timeline of the latest request."""
    kept = kept_of(program)
    encoded = kept.find(kept.listing().requests[0].id)
    assert encoded is not None
    return msgspec.json.decode(encoded, type=Timeline)


def phases(line: AttemptLine) -> list[str]:
    return [phase.name for phase in line.phases]


def gapless(line: AttemptLine) -> bool:
    ends = [line.start_ms, *[phase.end_ms for phase in line.phases if phase.name != "queue"]]
    begins = [*[phase.start_ms for phase in line.phases if phase.name != "queue"], line.end_ms]
    return ends == begins


async def answer_in_parts(peer: Peer) -> None:
    while (await peer.read_request())[0]:
        head = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 3\r\n\r\n1" % JSON
        await peer.send(head)
        await wait_all_tasks_blocked(0.005)  # Both parts are read apart.
        await peer.send(b"00")


async def test_a_new_connection_with_tls_has_its_steps_and_a_kept_one_has_none(tmp_path: Path) -> None:
    ca = CA()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)

    async def upstream(peer: Peer) -> None:
        await answer_in_parts(peer)

    async with raw_server(upstream, tls=context) as server:
        tables = f'[upstreams.up]\nurls = ["https://localhost:{int(server)}"]\ntls.ca = "ca.pem"\n{route()}'
        async with running(tmp_path, tables) as program:
            assert (await program.ask("/r"))[0].json == {"part": 100}
            first = latest(program).calls[0].attempts[0]
            await program.ask("/r")
            second = latest(program).calls[0].attempts[0]
    assert (phases(first), first.reused) == (["dns", "connect", "tls", "wait", "body"], False)
    assert (phases(second), second.reused) == (["wait", "body"], True)
    assert gapless(first)
    assert gapless(second)
    assert (first.method, first.outcome, first.status) == ("GET", "ok", 200)


async def test_a_new_connection_without_tls_has_no_phase_of_tls(tmp_path: Path) -> None:
    async with raw_server(answer_in_parts) as server, running(tmp_path, up(server) + route()) as program:
        assert (await program.ask("/r"))[0].status == 200
        attempt = latest(program).calls[0].attempts[0]
    assert (phases(attempt)[-3:], attempt.reused) == (["connect", "wait", "body"], False)
    assert "tls" not in phases(attempt)
    assert gapless(attempt)


async def test_a_call_that_waits_for_a_place_has_the_phase_queue(tmp_path: Path) -> None:
    more = '[routes.calls.next]\nupstream = "up"\npath = "/y"\n'
    keys = "max_concurrency = 1\ncoalesce = false"
    async with raw_server(answer_in_parts) as server, running(tmp_path, up(server, keys) + route() + more) as program:
        assert (await program.ask("/r"))[0].status == 200
        timeline = latest(program)
    first, second = (call.attempts[0] for call in timeline.calls)
    assert phases(first)[0] != "queue"
    assert phases(second)[0] == "queue"
    assert second.phases[0].end_ms == second.start_ms >= first.end_ms
    assert [call.critical for call in timeline.calls] == [False, True]


async def test_items_of_an_each_have_attempts_with_their_numbers(tmp_path: Path) -> None:
    async def upstream(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            await peer.send(response(b"[1, 2, 3]", JSON) if b" /x " in request[0] else OK)

    items = '[routes.calls.items]\nupstream = "up"\npath = "/i/{item}"\neach = "part"\n'
    async with raw_server(upstream) as server, running(tmp_path, up(server) + route() + items) as program:
        assert (await program.ask("/r"))[0].status == 200
        listed, each = latest(program).calls
    assert (listed.name, each.name, each.needs, each.upstream) == ("part", "items", ("part",), "up")
    assert sorted(line.item for line in each.attempts if line.item is not None) == [0, 1, 2]
    assert {line.resend for line in each.attempts} == {0}


async def test_a_proxied_request_has_its_call_and_its_attempt(tmp_path: Path) -> None:
    text = '[[routes]]\npath = "/p/<path:rest>"\nproxy = { upstream = "up" }\n'
    async with raw_server(answer_in_parts) as server, running(tmp_path, up(server) + text) as program:
        assert (await program.ask("/p/a"))[0].status == 200
        timeline = latest(program)
    (call,) = timeline.calls
    assert (timeline.route, timeline.outcome, call.upstream) == ("/p/<path:rest>", "complete", "up")
    assert phases(call.attempts[0])[-2:] == ["wait", "body"]
    assert gapless(call.attempts[0])


async def test_calls_made_in_code_have_lanes_too(tmp_path: Path) -> None:
    def prepare(app: Any) -> None:
        @app.compose("/code")
        async def code(compose: Any) -> Any:
            async with compose.gather() as gather:
                one = gather.get("up", "/one")
            async with compose.gather() as gather:
                gather.get("up", "/two", name="two")
            return one.value

    async with raw_server(answer_in_parts) as server, running(tmp_path, up(server), prepare=prepare) as program:
        assert (await program.ask("/code"))[0].status == 200
        timeline = latest(program)
    assert [(call.upstream, call.critical, len(call.attempts)) for call in timeline.calls] == [("up", True, 1)] * 2


async def test_a_connection_that_cannot_be_made_is_a_failed_attempt_in_that_phase(tmp_path: Path) -> None:
    async def hold(peer: Peer) -> None:
        await peer.closed()

    async with raw_server(hold) as server:
        server.refuse()
        text = up(server) + route()
        async with running(tmp_path, text) as program:
            assert (await program.ask("/r"))[0].status == 502
            timeline = latest(program)
    (attempt,) = timeline.calls[0].attempts
    assert (timeline.outcome, attempt.outcome, attempt.kind) == ("failed", "failed", "connect")
    assert "connect" in phases(attempt)
    assert attempt.reason
    assert kept_of(program).listing().seen == {"/r": {"error": 1}}
