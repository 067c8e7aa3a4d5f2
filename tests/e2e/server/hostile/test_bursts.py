"""Bursts in one read: the longest step of the event loop does not grow with the number of frames or requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame

from tests.support.longest_step import longest_step
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import serving
from tests.support.server.ws_client import upgrade

SMALL, LARGE = 8 * 1024, 64 * 1024
RUNS = 3
FLOOR_S = 0.04
"""Seconds. Shorter steps cannot be compared on a busy machine; ``make bench-stalls`` measures them."""

Burst = Callable[[int, int], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body, and respond."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("it has none")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def _burst(port: int, size: int, unit: bytes, before: bytes = b"", after: bytes = b"") -> None:
    """Send ``before``, then ``size`` bytes of repeated ``unit`` at once, and read until no byte comes any more."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        if before:
            await stream.send_all(before)
            await trio.testing.wait_all_tasks_blocked(0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, unit * (size // len(unit)) + after)
            with suppress(trio.BrokenResourceError), trio.move_on_after(5):
                idle = trio.testing.wait_all_tasks_blocked
                while not await _finished(stream, idle):
                    pass
            nursery.cancel_scope.cancel()


async def _finished(stream: trio.SocketStream, idle: Any) -> bool:
    with trio.move_on_after(0.05) as scope:
        return not await stream.receive_some(65536)
    return scope.cancelled_caught


POST = b"POST / HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n"


def http1(unit: bytes, before: bytes = b"", after: bytes = b"") -> Burst:
    return lambda port, size: _burst(port, size, unit, before, after)


def http2(kind: str) -> Burst:
    async def burst(port: int, size: int) -> None:
        async with h2_client(port) as client:
            while not client.settled:
                await client.receive()
            encoder = Encoder()
            data = bytearray()
            if kind == "data":
                stream_id = await client.request("POST", "/", end=False)
                frame = DataFrame(stream_id, b"x").serialize()
                data += frame * (size // len(frame))
            elif kind == "pings":
                data += PingFrame(0, b"12345678").serialize() * min(400, size // 17)
            else:
                stream_id = 1
                path = "/" if kind == "requests" else "/#"
                while len(data) < size:
                    fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "a")]
                    block = encoder.encode(fields)
                    data += HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
                    stream_id += 2
            client.mute = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, bytes(data))
                with suppress(Exception), trio.move_on_after(5):
                    while not await _finished(client.stream, None):
                        pass
                nursery.cancel_scope.cancel()

    return burst


BURSTS: dict[str, Burst] = {
    "HTTP/1.1: not found": http1(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/1.1: refused": http1(b"GET # HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/1.1: chunks": http1(b"1\r\nx\r\n", POST, b"0\r\n\r\n"),
    "HTTP/1.1: chunks with long sizes": http1(b"000000000001\r\nx\r\n", POST, b"0\r\n\r\n"),
    "HTTP/1.1: chunks with extensions": http1(b"1;\r\nx\r\n", POST, b"0\r\n\r\n"),
    "HTTP/2: DATA": http2("data"),
    "HTTP/2: PING": http2("pings"),
    "HTTP/2: requests": http2("requests"),
    "HTTP/2: refused": http2("refused"),
    "WebSocket: messages": http1(b"\x81\x81\0\0\0\0x", upgrade()),
    "WebSocket: pings": http1(b"\x89\x80\0\0\0\0", upgrade()),
    "WebSocket: pongs": http1(b"\x8a\x80\0\0\0\0", upgrade()),
    "WebSocket: empty fragments": http1(b"\x00\x80\0\0\0\0", upgrade() + b"\x01\x80\0\0\0\0"),
}


async def _longest(burst: Burst, size: int) -> float:
    """Compare the shortest of several runs: other programs can only make a step longer."""
    found = []
    for _ in range(RUNS):
        async with serving(app) as port:
            with longest_step() as steps:
                await burst(port, size)
        found.append(steps.seconds)
    return min(found)


@pytest.mark.parametrize("name", BURSTS)
async def test_a_burst_of_many_small_units_blocks_the_loop_no_longer_than_a_few(name: str) -> None:
    few, many = await _longest(BURSTS[name], SMALL), await _longest(BURSTS[name], LARGE)
    assert many < max(FLOOR_S, 4 * few), (few, many)
