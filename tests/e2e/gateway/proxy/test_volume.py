"""Memory of a worker that passes on a large body, or a thousand streams. ``make soak`` sends 10 GiB in each direction.

The worker is a process of its own, so that its memory can be measured. The figures are printed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.gateway.streaming_upstream import EVENTS, PIECE, StreamingUpstream, open_websocket
from tests.support.process.launched_workers import Launched, launched
from tests.support.server.http_channels import PROTOCOLS, Http1, Http2, opened, rest
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import raw_server

SIZES = {"HTTP/1.1": 10 * 2**30, "HTTP/2": 10 * 2**30} if SOAK else {"HTTP/1.1": 2**27, "HTTP/2": 2**24}
"""Bytes of a body."""
STREAMS = 1000 if SOAK else 100
GROWTH_MAX = 2**20
CONFIG = """
[server]
max_body = "1MiB"
[upstreams.up]
urls = ["http://127.0.0.1:{port}"]
max_streams = 3000
[[routes]]
path = "/<path:rest>"
proxy = {{ upstream = "up", websocket = true, max_body = "off" }}
"""


@asynccontextmanager
async def worker(directory: Path) -> AsyncIterator[Launched]:
    """A worker with a proxy route to a ``StreamingUpstream`` in this process."""
    async with raw_server(StreamingUpstream()) as port:
        with launched("umbel serve", directory, CONFIG.format(port=int(port))) as server:
            yield server


async def download(channel: Http1 | Http2, size: int) -> None:
    await channel.request("GET", f"/download?{size}")
    assert (await channel.answer())[0] == 200
    while part := await channel.part():
        size -= len(part)
    assert size == 0


async def upload(channel: Http1 | Http2, size: int) -> None:
    await channel.request("POST", "/upload", [("content-length", str(size))], end=False)
    for at in range(0, size, len(PIECE)):
        await channel.body(PIECE[: size - at], end=size - at <= len(PIECE))
    assert (await channel.answer())[0] == 200
    assert await rest(channel) == b"%d" % size


@pytest.mark.timeout(3600 if SOAK else 60)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_large_body_in_each_direction_takes_at_most_one_mebibyte(protocol: str, tmp_path: Path) -> None:
    size = SIZES[protocol]
    async with worker(tmp_path) as server:
        for pass_on in (download, upload):
            async with opened(protocol, server.port) as channel:
                await pass_on(channel, 2**22)
            before, began = server.resident_from_now(), time.perf_counter()
            async with opened(protocol, server.port) as channel:
                await pass_on(channel, size)
            took, grown = time.perf_counter() - began, server.peak() - before
            print(
                f"{protocol} {pass_on.__name__}: {size / 2**30:g} GiB at {size / took / 2**20:.0f} MiB/s, "
                f"{grown / 1024:.0f} KiB above idle"
            )
            assert grown <= GROWTH_MAX


@pytest.mark.timeout(300 if SOAK else 60)
async def test_a_thousand_event_streams_and_websockets_take_little_memory(tmp_path: Path) -> None:
    async with worker(tmp_path) as server, AsyncExitStack() as stack:

        async def events() -> None:
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port))
            await stream.send_all(b"GET /events HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            received = b""
            while b"data: 1\n\n" not in received:
                data = await stream.receive_some()
                assert data, received
                received += data
            assert received.startswith(EVENTS[:15])

        async def websocket() -> None:
            stream, frames = await open_websocket(server.port)
            await stack.enter_async_context(stream)
            while not frames.received:
                frames.feed(await stream.receive_some())

        for kind, most in ((events, 40_000), (websocket, 60_000)):
            for _ in range(20):
                await kind()
            gc.collect()
            before = server.resident()
            for _ in range(STREAMS):
                await kind()
            each = (server.resident() - before) / STREAMS
            print(f"{kind.__name__}: {STREAMS} streams, {each / 1024:.1f} KiB each")
            assert each <= most
        assert server.lives
