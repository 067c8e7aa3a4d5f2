"""Clients that leave at any moment, stop reading, or send requests that are refused; through the whole program."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.server.serving import RawClient, connected
from tests.support.upstream.bad_upstreams import HEAD, full
from tests.support.upstream.raw_server import Handler, Peer, answering, raw_server, response, silent
from umbel.core.failure_kinds import Kind

JSON = "content-type: application/json\r\n"
LARGE = 4 * 2**20

LEAVING = pytest.mark.parametrize("how", ["a FIN", "a reset"])


async def leave(client: RawClient, how: str) -> None:
    if how == "a reset":
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.stream.aclose()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():
            await wait_all_tasks_blocked(0.002)


def head(target: str, fields: str = "", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n".encode()


class Moment(NamedTuple):
    """The moment at which a client leaves: its request so far, and the behaviour of its upstream."""

    request: bytes
    script: Callable[[trio.Event], Handler]
    """Makes the upstream, which sets the event at the moment."""
    calls: tuple[Kind | None, ...] = (Kind.CLIENT_GONE,)
    """The failure kinds of the route's calls; None: a value."""
    status: int = 499
    """The status in the record."""
    first: bytes = b""
    """The bytes that the client waits for before it leaves."""


def asked_and(then: Handler, *answers: bytes) -> Callable[[trio.Event], Handler]:
    """An upstream that sends ``answers``, sets the event at the next request, and continues with ``then``."""

    def script(moment: trio.Event) -> Handler:
        async def handler(peer: Peer) -> None:
            for answer in answers:
                await peer.read_request()
                await peer.send(answer)
            await peer.read_head()
            moment.set()
            await then(peer)

        return handler

    return script


def never_asked(moment: trio.Event) -> Handler:
    moment.set()

    async def handler(peer: Peer) -> None:
        raise AssertionError("the upstream got a request")

    return handler


async def half_a_body(peer: Peer) -> None:
    await peer.send(HEAD + b"Content-Length: 100\r\n\r\nhalf")
    await peer.closed()


async def reads_no_further(peer: Peer) -> None:
    # The buffers fill up, so the gateway waits within a send during this time.
    await trio.sleep(0.1)
    await peer.closed()


ROUTES = "".join(
    (
        route("/r"),
        route("/body", call='json = "body"'),
        route("/upload", keys='body = "bytes"\nmax_body = "8MB"', call="forward_body = true"),
        route("/large", call='decode = "text"'),
        # A call with a list, and one call per item.
        route("/each") + '[routes.calls.items]\nupstream = "up"\npath = "/items/{item}"\neach = "part"\n',
        route("/stream") + '[routes.calls.next]\nupstream = "up"\npath = "/next/{part}"\n',
    )
)

MOMENTS: dict[str, Moment] = {
    "before the body is there": Moment(
        head("/body", JSON + "Content-Length: 100\r\n", "POST") + b'{"half', never_asked, calls=()
    ),
    "while the upstream is silent": Moment(head("/r"), asked_and(silent)),
    "in the middle of the upstream's body": Moment(head("/r"), asked_and(half_a_body)),
    "while its upload goes on to the upstream": Moment(
        head("/upload", f"Content-Length: {LARGE}\r\n", "POST") + bytes(LARGE), asked_and(reads_no_further)
    ),
    "during the items of an each": Moment(
        head("/each"), asked_and(silent, response(b"[1, 2, 3]")), calls=(None, Kind.CLIENT_GONE)
    ),
    "after the first line of a stream": Moment(
        head("/stream", "Accept: application/x-ndjson\r\n"),
        asked_and(silent, response(b"7")),
        calls=(None, Kind.CLIENT_GONE),
        status=200,
        first=b'{"call":"part","value":7}\n',
    ),
    "with a large answer unread": Moment(
        head("/large"),
        lambda moment: answering(response(b"x" * LARGE)),
        calls=(None,),
        status=200,
        first=b"HTTP/1.1 200",
    ),
}


@SERVERS
@LEAVING
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_client_that_leaves_ends_its_calls(moment: Moment, how: str, stock: bool, tmp_path: Path) -> None:
    come = trio.Event()
    async with raw_server(moment.script(come)) as upstream, raw_server(answering(response(b"1"))) as other:
        config = up(upstream) + up(other, name="other") + ROUTES + route("/other", upstream="other")
        async with running(tmp_path, config, stock=stock) as program:
            async with connected(program.port) as client:
                await client.stream.send_all(moment.request)
                with trio.fail_after(5):
                    if moment.first:
                        while moment.first not in client.received:
                            client.received += await client.stream.receive_some()
                    else:
                        await come.wait()
                await leave(client, how)
            await program.settled()
            if None not in moment.calls:
                await upstream.all_closed()
            # The next client is served as usual.
            assert (await program.ask("/other"))[0].json == {"part": 1}
        await upstream.all_closed()
    gone, served = program.lines("access")
    assert (gone["http.response.status_code"], gone["kind"]) == (moment.status, Kind.CLIENT_GONE)
    assert (served["http.response.status_code"], served.get("kind")) == (200, None)
    calls = [line for line in program.lines("calls") if line["request_id"] == gone["request_id"]]
    assert tuple(line.get("kind") for line in calls) == moment.calls
    assert {line["event"] for line in program.lines("app")} == {"log.closed"}


@SERVERS
@LEAVING
async def test_a_client_that_leaves_within_its_head_is_not_recorded(how: str, stock: bool, tmp_path: Path) -> None:
    async with raw_server(answering(response(b"1"))) as upstream:
        config = up(upstream) + route()
        async with running(tmp_path, config, stock=stock) as program:
            for part in (b"", b"GET", b"GET /r HTTP/1.1\r\nHost: x", b"GET /r HTTP/1.1\r\nHost: x\r\n"):
                async with connected(program.port) as client:
                    if part:
                        await client.stream.send_all(part)
                    await leave(client, how)
            await program.settled()
            assert program.app.statistics().requests_total == 0
            assert (await program.ask("/r"))[0].status == 200
    assert len(upstream.connections) == 1
    assert [line["http.response.status_code"] for line in program.lines("access")] == [200]


@SERVERS
@LEAVING
async def test_a_client_that_leaves_with_its_response_is_recorded_as_200(how: str, stock: bool, tmp_path: Path) -> None:
    async with raw_server(answering(response(b"1"))) as upstream:
        config = up(upstream) + route()
        async with running(tmp_path, config, stock=stock) as program:
            for _ in range(10):
                async with connected(program.port) as client:
                    assert (await client.request("GET", "/r")).json == {"part": 1}
                    await leave(client, how)
            await program.settled()
    # All calls used the same connection, one after the other.
    assert len(upstream.connections) == 1
    assert [line["http.response.status_code"] for line in program.lines("access")] == [200] * 10
    assert [line.get("kind") for line in program.lines("calls")] == [None] * 10


@LEAVING
@pytest.mark.parametrize("scheme", ["http", "https"], ids=["TCP", "TLS"])
async def test_a_client_that_leaves_while_a_call_connects_leaves_no_socket(
    scheme: str, how: str, tmp_path: Path
) -> None:
    async with raw_server(silent) as stalling:
        # Connecting takes for ever: the accept queue is full, or no peer answers the handshake.
        with nullcontext(int(stalling)) if scheme == "https" else full() as port:
            config = up(port, 'connect_timeout = "1h"').replace("http:", f"{scheme}:") + route()
            async with running(tmp_path, config) as program, connected(program.port) as client:
                await client.stream.send_all(head("/r"))
                await until(lambda: program.client("up").statistics().pool.connecting)
                await leave(client, how)
                await program.settled()
        await stalling.all_closed()
    (gone,), (call,) = program.lines("access"), program.lines("calls")
    assert (gone["http.response.status_code"], gone["kind"], call["kind"]) == (499, Kind.CLIENT_GONE, Kind.CLIENT_GONE)


@LEAVING
async def test_a_client_that_leaves_frees_its_place_in_the_queue(how: str, tmp_path: Path) -> None:
    go = trio.Event()

    async def patient(peer: Peer) -> None:
        while await peer.read_head():
            await go.wait()
            await peer.send(response(b"1"))

    async with raw_server(patient) as upstream:
        config = up(upstream, "max_concurrency = 1\nmax_queue = 1") + route()
        async with running(tmp_path, config, keep_alive_timeout=5) as program, connected(program.port) as first:
            await first.send("GET", "/r")
            await until(lambda: program.client("up").statistics().pool.active)
            for _ in range(3):
                async with connected(program.port) as client:
                    await client.stream.send_all(head("/r"))
                    await until(lambda: program.client("up").statistics().bulkhead.waiting)
                    # The queue is full for a further request, until the client in it leaves.
                    assert (await program.ask("/r"))[0].status == 503
                    await leave(client, how)
                await until(lambda: not program.client("up").statistics().bulkhead.waiting)
            go.set()
            assert (await first.reply()).json == {"part": 1}
            await first.stream.aclose()
    assert len(upstream.connections) == 1
    kinds = [line.get("kind") for line in program.lines("calls")]
    assert sorted(kinds, key=str) == sorted([None, *[Kind.OVERFLOW, Kind.CLIENT_GONE] * 3], key=str)


@SERVERS
@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_client_that_stops_reading_a_stream_ends_the_call_in_flight(
    accept: str, stock: bool, tmp_path: Path
) -> None:
    async def parts(peer: Peer) -> None:
        while request := await peer.read_head():
            if b"/last" in request:
                await peer.closed()
                return
            await peer.send(response(b'"' + b"x" * 900_000 + b'"'))

    calls = "".join(
        f'[routes.calls.c{number}]\nupstream = "up"\npath = "/{"last" if number == 0 else number}"\n'
        for number in range(10)
    )
    async with raw_server(parts) as upstream:
        config = '[server]\nwrite_timeout = "200ms"\n' + up(upstream) + route(keys='deadline = "1h"') + calls
        async with running(tmp_path, config, stock=stock) as program, connected(program.port) as client:
            await client.stream.send_all(head("/r", f"Accept: {accept}\r\n"))
            await client.stream.receive_some(1)
            await program.settled()
            assert (await program.ask("/livez"))[0].status == 200
        await upstream.all_closed()
    gone = program.lines("access")[0]
    assert (gone["http.response.status_code"], gone["kind"]) == (200, Kind.CLIENT_GONE)
    kinds = {line["call"]: line.get("kind") for line in program.lines("calls")}
    assert len(program.lines("calls")) == 11
    assert kinds["c0"] == Kind.CLIENT_GONE


class Refusal(NamedTuple):
    """A request that is refused."""

    request: bytes
    status: int
    kind: Kind | None = None
    """The kind in the record."""


def post(body: bytes, fields: str = "") -> bytes:
    return head("/p", f"{JSON}{fields}Content-Length: {len(body)}\r\n", "POST") + body


REFUSALS: dict[str, Refusal] = {
    "bad JSON": Refusal(post(b'{"a": 1'), 400, Kind.BAD_REQUEST),
    "JSON 10,000 deep": Refusal(post(b"[" * 10_000 + b"]" * 10_000), 400, Kind.BAD_REQUEST),
    "no body": Refusal(post(b""), 400, Kind.BAD_REQUEST),
    "another type": Refusal(head("/p", "Content-Length: 2\r\nContent-Type: text/plain\r\n", "POST") + b"{}", 415),
    "an unknown coding": Refusal(post(b"{}", "Content-Encoding: compress\r\n"), 415),
    "a bomb": Refusal(post(gzip.compress(b" " * 50_000), "Content-Encoding: gzip\r\n"), 413),
    "a length over the limit": Refusal(head("/p", f"{JSON}Content-Length: 50001\r\n", "POST"), 413),
    "chunks over the limit": Refusal(
        head("/p", JSON + "Transfer-Encoding: chunked\r\n", "POST") + b"c351\r\n" + b"1" * 50_001 + b"\r\n", 413
    ),
    "unknown path": Refusal(head("/nowhere"), 404),
    "wrong method": Refusal(head("/p", method="DELETE"), 405),
    "a parameter of another type": Refusal(head("/q?n=hidden"), 400, Kind.BAD_REQUEST),
}


@SERVERS
@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_a_refused_request_is_recorded_and_makes_no_call(case: Refusal, stock: bool, tmp_path: Path) -> None:
    async with raw_server(answering(response(b"1"))) as upstream:
        config = (
            up(upstream)
            + route("/p", keys='max_body = "50KB"', call='json = "body"')
            + route("/q", keys='query = { n = { type = "int" } }')
        )
        async with running(tmp_path, config, stock=stock) as program, connected(program.port) as client:
            await client.stream.send_all(case.request)
            reply = await client.reply("POST")
            await client.stream.aclose()
    assert (reply.status, reply["content-type"]) == (case.status, "application/problem+json")
    assert (reply["cache-control"], reply.json["request_id"]) == ("no-store", reply["x-request-id"])
    assert b"hidden" not in client.received
    assert upstream.connections == []
    (line,) = program.lines("access")
    assert (line["http.response.status_code"], line.get("kind")) == (case.status, case.kind)
    assert line["request_id"] == reply["x-request-id"]
    assert program.lines("calls") == []
