"""Slow clients over HTTP/1.1 on real sockets, under both launchers: heads, bodies, and responses that are not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.serving import RawClient, connected
from tests.support.upstream.raw_server import answering, raw_server, response, silent

GUARD = 10
"""Factor on the promised times, for a busy machine."""
HEAD_S = 0.2
BODY_S = 0.3
WRITE_S = 0.2
LIMITS = """\
[logs.access]
probes = true
[server]
head_timeout = "200ms"
body_timeout = "300ms"
min_body_rate = "100MB/s"
write_timeout = "200ms"
"""
GET = b"GET /livez HTTP/1.1\r\nHost: gateway.test\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n"


LARGE = 8_000_000
FRAMINGS = pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 9000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
    ids=["length", "chunks"],
)


@asynccontextmanager
async def program_of_slow_peers(directory: Path, stock: bool) -> AsyncIterator[Program]:
    """A server with short limits, and an upstream that must get no request."""
    async with raw_server(silent) as upstream:
        config = LIMITS + up(upstream) + route("/p", call='json = "body"')
        async with running(directory, config, stock=stock, keep_alive_timeout=60) as program:
            yield program
        assert upstream.connections == []


async def drip(client: RawClient, data: Iterable[bytes], every: float) -> None:
    """Send piece after piece until the server closes the connection."""
    try:
        for piece in data:
            await client.stream.send_all(piece)
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def assert_cut_with_408(program: Program, client: RawClient, within: float, began: float) -> None:
    with trio.fail_after(within * GUARD):
        reply = await client.reply("POST")
        assert await client.closed_by_server()
    assert (reply.status, reply["content-type"], reply["connection"]) == (408, "application/problem+json", "close")
    assert reply.json["request_id"] == reply["x-request-id"]
    assert trio.current_time() - began >= within * 0.9
    # Other clients are served.
    assert (await program.ask("/livez"))[0].status == 200


@SERVERS
@pytest.mark.parametrize("requests_before", [0, 1, 3], ids=["at once", "on the second request", "on the fourth"])
async def test_a_slow_head_gets_408_on_each_request_of_a_connection(
    requests_before: int, stock: bool, tmp_path: Path
) -> None:
    async with program_of_slow_peers(tmp_path, stock) as program, connected(program.port) as client:
        for _ in range(requests_before):
            assert (await client.request("GET", "/livez")).status == 200
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            endless = (GET, *(b"X-%d: 1\r\n" % n for n in range(10_000)))
            nursery.start_soon(drip, client, endless, HEAD_S / 10)
            await assert_cut_with_408(program, client, HEAD_S, began)
            nursery.cancel_scope.cancel(reason="cut")
        await client.stream.aclose()
    statuses = [line["http.response.status_code"] for line in program.lines("access")]
    assert sorted(statuses) == [*[200] * (requests_before + 1), 408]
    (line,) = [line for line in program.lines("access") if line["http.response.status_code"] == 408]
    assert line["msg"]


@SERVERS
async def test_half_a_head_and_then_silence_gets_408(stock: bool, tmp_path: Path) -> None:
    async with program_of_slow_peers(tmp_path, stock) as program, connected(program.port) as client:
        began = trio.current_time()
        await client.stream.send_all(GET)
        await assert_cut_with_408(program, client, HEAD_S, began)
        await client.stream.aclose()


def assert_one_408(program: Program) -> None:
    late = [line for line in program.lines("access") if line["url.path"] == "/p"]
    assert [line["http.response.status_code"] for line in late] == [408]
    assert late[0]["msg"]


@SERVERS
@FRAMINGS
async def test_a_body_that_stops_gets_408_after_the_time_for_its_length(
    framing: bytes, stock: bool, tmp_path: Path
) -> None:
    async with program_of_slow_peers(tmp_path, stock) as program, connected(program.port) as client:
        began = trio.current_time()
        await client.stream.send_all(POST + framing)
        await assert_cut_with_408(program, client, BODY_S, began)
        await client.stream.aclose()
        await program.settled()
    assert_one_408(program)


@SERVERS
async def test_a_slow_body_gets_408_after_the_time_for_its_length(stock: bool, tmp_path: Path) -> None:
    async with program_of_slow_peers(tmp_path, stock) as program, connected(program.port) as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            pieces = (POST + b"Content-Length: 9000\r\n\r\n", *[b" "] * 9000)
            nursery.start_soon(drip, client, pieces, BODY_S / 10)
            await assert_cut_with_408(program, client, BODY_S, began)
            nursery.cancel_scope.cancel(reason="cut")
        await client.stream.aclose()
        await program.settled()
    assert_one_408(program)


@SERVERS
async def test_an_unread_response_is_cut_off_and_releases_its_upstream_connection(stock: bool, tmp_path: Path) -> None:
    large = response(b'"' + b"x" * 900_000 + b'"', b"Content-Type: application/json")
    calls = "".join(f'[routes.calls.c{number}]\nupstream = "up"\npath = "/{number}"\n' for number in range(10))
    async with (
        raw_server(answering(large)) as upstream,
        running(tmp_path, LIMITS + up(upstream) + route() + calls, stock=stock) as program,
        connected(program.port) as client,
    ):
        await client.stream.send_all(b"GET /r HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
        # The first byte shows that the response has begun. No further byte is read.
        await client.stream.receive_some(1)
        with trio.fail_after(WRITE_S * GUARD + 1):
            await program.settled()
        assert program.client("up").statistics().pool.active == 0
        assert (await program.ask("/livez"))[0].status == 200
    cut = next(line for line in program.lines("access") if line["url.path"] == "/r")
    assert cut["kind"] == "client-gone"


@SERVERS
async def test_a_slow_reader_that_makes_progress_gets_the_whole_response(stock: bool, tmp_path: Path) -> None:
    """The write timeout measures progress: this response takes many times as long as the timeout."""
    large = response(b'"' + b"x" * LARGE + b'"', b"Content-Type: application/json")
    async with (
        raw_server(answering(large)) as upstream,
        running(tmp_path, LIMITS + up(upstream, 'max_body = "10MB"') + route(), stock=stock) as program,
        connected(program.port) as client,
    ):
        await client.stream.send_all(b"GET /r HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n")
        began, received = trio.current_time(), 0
        with trio.fail_after(30):
            while data := await client.stream.receive_some(200_000):
                received += len(data)
                await trio.sleep(WRITE_S / 10)
    assert received > LARGE
    assert trio.current_time() - began > WRITE_S * 2
