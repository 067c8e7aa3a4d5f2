"""A drain ends each WebSocket with 1012, spread over ``drain_idle``, and loses, doubles and cuts no frame before.

Both sides of each WebSocket send numbered frames of random sizes all the time. ``make soak`` opens a thousand.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.gateway.configs import write
from tests.support.gateway.streaming_upstream import StreamingUpstream, open_websocket, send_frames
from tests.support.process.launched_workers import launched
from tests.support.process.supervised import supervised
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import RawServer, raw_server

WEBSOCKETS = 1000 if SOAK else 20
DRAIN_IDLE_S = 2.0 if SOAK else 0.3
PAUSE_S = 4.0 if SOAK else 0.05
"""The longest pause between two frames of one side of one WebSocket."""
WAIT_S = 120 if SOAK else 20
CLOSE = b"\x88\x82\0\0\0\0\x03\xf4"
"""A client's close frame with 1012."""
CONFIG = f"""
[server]
drain_idle = "{DRAIN_IDLE_S * 1000:.0f}ms"
[upstreams.up]
urls = ["http://127.0.0.1:PORT"]
max_streams = 3000
[[routes]]
path = "/<path:rest>"
proxy = {{ upstream = "up", websocket = true }}
"""


class Clients:
    """Clients of WebSockets; each checks its frames."""

    def __init__(self) -> None:
        self._opening = trio.CapacityLimiter(20)
        self.opened = 0
        self.all_opened = trio.Event()
        """Set when every client has received some frames."""
        self.frames = 0
        self.close_codes: list[int | None] = []
        self.closed_at: list[float] = []

    async def run(self, port: int) -> None:
        """Open one WebSocket, and send and receive frames until the gateway closes it."""
        async with self._opening:
            stream, frames = await open_websocket(port)
        started = False
        async with stream, trio.open_nursery() as nursery:
            sending = trio.CancelScope()
            nursery.start_soon(self._send, stream, sending)
            try:
                while data := await stream.receive_some():
                    frames.feed(data)
                    if not started and frames.received >= 3:
                        started = True
                        self.opened += 1
                        if self.opened == WEBSOCKETS:
                            self.all_opened.set()
                    if frames.close_code is not None and not sending.cancel_called:
                        self.closed_at.append(time.monotonic())
                        sending.cancel(reason="the gateway has closed")
            except trio.BrokenResourceError:
                pass
            nursery.cancel_scope.cancel(reason="the connection has ended")
        assert not frames.inside, "the last frame is cut"
        self.frames += frames.received
        self.close_codes.append(frames.close_code)

    async def _send(self, stream: trio.SocketStream, sending: trio.CancelScope) -> None:
        with sending:
            await send_frames(stream, PAUSE_S, masked=True)


@asynccontextmanager
async def upstream_and_config(directory: Path) -> AsyncIterator[tuple[StreamingUpstream, RawServer]]:
    """Run an upstream within the block; ``umbel.toml`` in ``directory`` has a proxy route to it."""
    upstream = StreamingUpstream(PAUSE_S)
    async with raw_server(upstream) as port:
        write(directory, CONFIG.replace("PORT", str(int(port))))
        yield upstream, port


async def drained(port: int, drain: Callable[[], object], upstream: StreamingUpstream, server: RawServer) -> None:
    """Open the WebSockets, call ``drain``, and check how each of them ends."""
    clients = Clients()
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            for _ in range(WEBSOCKETS):
                nursery.start_soon(clients.run, port)
            await clients.all_opened.wait()
            began = time.monotonic()
            drain()
        await server.all_closed()
    first, last = min(clients.closed_at) - began, max(clients.closed_at) - began
    print(f"{WEBSOCKETS} WebSockets, {clients.frames} frames: closed {first:.2f} s to {last:.2f} s after the signal")
    assert clients.close_codes == [1012] * WEBSOCKETS
    assert upstream.close_codes == [1012] * WEBSOCKETS
    assert upstream.broken == []
    assert last - first >= DRAIN_IDLE_S / 2


@pytest.mark.timeout(300 if SOAK else 60)
async def test_sigterm_ends_each_websocket_with_1012_and_loses_no_frame(tmp_path: Path) -> None:
    async with upstream_and_config(tmp_path) as (upstream, server):
        with launched("umbel serve", tmp_path) as worker:
            await drained(worker.port, lambda: worker.process.send_signal(signal.SIGTERM), upstream, server)
            await trio.to_thread.run_sync(worker.process.wait, 30)
            assert worker.process.returncode == 0


@pytest.mark.timeout(300)
async def test_a_reload_ends_each_websocket_with_1012_and_loses_no_frame(tmp_path: Path) -> None:
    async with (
        upstream_and_config(tmp_path) as (upstream, server),
        supervised(tmp_path, app=None) as master,
    ):
        before = await master.pids()
        await drained(master.port, lambda: master.signal(signal.SIGHUP), upstream, server)
        with trio.fail_after(WAIT_S):
            while set(before.values()) & set((await master.pids()).values()):
                await trio.testing.wait_all_tasks_blocked(0.02)
        stream, _ = await open_websocket(master.port)
        await stream.aclose()
