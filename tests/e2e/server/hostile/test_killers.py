"""HTTP/1.1 input that ends a stock Hypercorn worker ends at most its own connection, under both launchers."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
import trio

from tests.support.process.launched_workers import LAUNCHERS
from tests.support.server.raw_client import converse
from tests.support.server.raw_requests.case import CLOSE, get, post
from tests.support.server.raw_server_process import Served, serving_raw
from tests.support.server.serving import fetch

TRIES = 300
"""Repetitions. A stock worker ended after 113 to 300 of them."""
AT_ONCE = 10


@pytest.fixture(scope="module", params=LAUNCHERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_raw(request.param, tmp_path_factory.mktemp("killers")) as served:
        yield served


async def assert_well(served: Served) -> None:
    """Assert that the worker has not been replaced, serves another client, and has logged no crash."""
    with trio.fail_after(10):
        assert (await fetch(served.server.port, "GET", "/livez", [("connection", "close")])).status == 200
    assert served.server.lives
    assert "Traceback" not in served.server.output
    assert served.server.complaints() == []


def reset(stream: trio.SocketStream) -> None:
    """Make the close a reset (RST)."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def leave(stream: trio.SocketStream, how: str) -> None:
    if how == "a reset":
        reset(stream)
    elif how == "a half-close":
        await stream.send_eof()
        with trio.fail_after(5):
            while await stream.receive_some():
                pass
    await stream.aclose()


@pytest.mark.parametrize("how", ["a close", "a half-close", "a reset"])
@pytest.mark.parametrize("target", ["/echo", "/nowhere"])
async def test_a_hundred_truncated_bodies_end_only_their_connections(served: Served, how: str, target: str) -> None:
    rng = random.Random(f"{how}{target}")

    async def try_some() -> None:
        for _ in range(TRIES // AT_ONCE):
            stream = await trio.open_tcp_stream("127.0.0.1", served.server.port)
            await stream.send_all(post(b"Content-Length: 100", target=target.encode()) + b"x" * rng.randrange(99))
            # Sometimes the request is already in flight or answered.
            for _ in range(rng.randrange(5)):
                await trio.lowlevel.checkpoint()
            try:
                await leave(stream, how)
            except trio.BrokenResourceError:
                await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(try_some)
    await assert_well(served)


@pytest.mark.parametrize(
    "more",
    [b"zz\r\n", b"\n", b"-1\r\n", b"\xff" * 100, b"2\r\n{}{}\r\n"],
    ids=["no hex", "a bare LF", "a sign", "no text", "a chunk too long"],
)
async def test_a_malformed_chunk_after_an_early_response_ends_its_connection(served: Served, more: bytes) -> None:
    request = post(b"Transfer-Encoding: chunked", target=b"/nowhere", body=b"1\r\n{\r\n")
    async with await trio.open_tcp_stream("127.0.0.1", served.server.port) as stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(5):
            while b'"request_id"' not in answer:
                data = await stream.receive_some()
                assert data, "the server closed before it answered"
                answer += data
            try:
                await stream.send_all(more)
                while data := await stream.receive_some():
                    answer += data
            except trio.BrokenResourceError:
                pass
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    await assert_well(served)


async def test_a_client_that_leaves_during_a_413_ends_only_its_connection(served: Served) -> None:
    """The 413 cannot be delivered. That counts as the client's leaving, and not as a crash of the application."""
    for tries in range(TRIES // 3):
        async with await trio.open_tcp_stream("127.0.0.1", served.server.port) as stream:
            await stream.send_all(post(b"Transfer-Encoding: chunked", body=b"1\r\n{\r\n"))
            await trio.testing.wait_all_tasks_blocked(0.001 * (tries % 3))
            await stream.send_all(b"zz\r\n")
            reset(stream)
    await assert_well(served)


async def test_an_endless_body_after_an_early_response_is_read_to_a_bound(served: Served) -> None:
    """The request is refused by its head, and at most 256 KiB of its body are read."""
    sent = 0
    async with await trio.open_tcp_stream("127.0.0.1", served.server.port) as stream:
        await stream.send_all(post(b"Content-Length: 100000000"))
        try:
            with trio.fail_after(10):
                while sent < 100_000_000:
                    await stream.send_all(bytes(65_536))
                    sent += 65_536
        except trio.BrokenResourceError:
            pass
    # The server reads 256 KiB. The rest is in the buffers of the two sockets.
    assert sent < 16_000_000
    await assert_well(served)


@pytest.mark.parametrize(
    "field",
    [b"Sec-WebSocket-Protocol: \xff", b"Sec-WebSocket-Extensions: \xff"],
    ids=["protocol", "extensions"],
)
async def test_an_upgrade_with_non_ascii_bytes_gets_400(served: Served, field: bytes) -> None:
    request = get(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        field,
    )
    heard = await converse(served.server.port, request, half_close=True)
    assert all(400 <= status < 500 for status in heard.statuses)
    await assert_well(served)


async def test_a_half_closed_client_still_gets_its_response(served: Served) -> None:
    heard = await converse(served.server.port, get(), half_close=True)
    assert heard.statuses == [200]
    await assert_well(served)


async def test_a_request_sent_byte_by_byte_gets_the_same_response(served: Served) -> None:
    request = post(b"Transfer-Encoding: chunked", CLOSE, body=b"2;a=b\r\n{}\r\n0\r\nX-T: 1\r\n\r\n")
    heard = await converse(served.server.port, *(request[n : n + 1] for n in range(len(request))))
    assert (heard.statuses, heard.replies[0].json) == ([200], {"got": {}})
    await assert_well(served)


async def test_pipelined_requests_get_their_responses_in_order(served: Served) -> None:
    body = [b'{"n":%d}' % n for n in range(200)]
    requests = b"".join(post(b"Content-Length: %d" % len(data), body=data) for data in body)
    heard = await converse(served.server.port, requests + get(CLOSE))
    assert heard.statuses == [200] * 201
    assert [reply.json["got"]["n"] for reply in heard.replies[:-1]] == list(range(200))
    await assert_well(served)
