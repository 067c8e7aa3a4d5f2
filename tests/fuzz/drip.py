"""Connections that send an input of the corpus byte by byte, and then repeat some bytes for ever.

The server must end each connection within BOUND_S. It runs in this process, over socket pairs and on a virtual clock,
so that minutes take milliseconds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

import trio
import trio.testing

from tests.fuzz.corpus import stored
from tests.fuzz.http2 import PING, PRIORITY, SETTINGS, WINDOW_UPDATE, Frame
from tests.fuzz.run import MAKERS, Finding, Input
from tests.support.server.http1 import App, Server, served
from umbel.server.limits.server_limits import Limits

LIMITS = Limits(head_timeout=5, body_timeout=30, write_timeout=30, cancel_timeout=5, max_body=2**20)
KEEP_ALIVE_S = 15.0
WEBSOCKET_S = 20.0
"""The seconds after which the application ends a WebSocket, on which a client may be silent for ever."""
BOUND_S = 300.0
"""Far above the sum of the timeouts of one connection, and far below the time that its bytes would take."""
EVERY_S = (0.55, 0.9, 1.7, 4.5, 29.0)
"""Seconds between two bytes: so many that no complete head arrives within ``head_timeout`` and renews the timeouts."""
AT_ONCE = 25
"""Concurrent connections."""
DRIVERS = ("epoll", "wait")

_FOREVER: tuple[bytes, ...] = (
    b"\r\n",
    b"\0",
    b"1\r\nx\r\n",
    Frame(PING, payload=bytes(8)).encode(),
    Frame(SETTINGS).encode(),
    Frame(PRIORITY, stream=1, payload=b"\0\0\0\3\x10").encode(),
    Frame(WINDOW_UPDATE, payload=b"\0\0\0\1").encode(),
    Frame(WINDOW_UPDATE, stream=1, payload=b"\0\0\0\1").encode(),
    Frame(0, stream=1, payload=b"x").encode(),
    Frame(9, stream=1, payload=b"x").encode(),
    b"\x89\x80\0\0\0\0",
    b"\x80\x81\0\0\0\0x",
)
"""Bytes that a client may repeat for ever."""


@dataclass(frozen=True, slots=True)
class Drip:
    """The behaviour of one connection."""

    protocol: str
    data: bytes
    at_once: int
    """The number of bytes of the data that are sent first, in one piece."""
    every: float
    """Seconds between two pieces."""
    again: bytes
    """Repeated for ever after the data."""
    reads: str
    """How much the client reads: "everything", "nothing", or "a byte" for each piece that it sends."""

    @classmethod
    def made(cls, protocol: str, rng: Random) -> Drip:
        """Make a random one: the data is a stored input or a mutation of one."""
        corpus = list(stored(protocol).values())
        data = rng.choice(corpus) if rng.random() < 0.6 else MAKERS[protocol](corpus, rng)
        # The connection slows down at the start, at a random place, or after all data.
        at_once = rng.choice((0, len(data), rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        again = rng.choice((data[-40:] or b"x", *_FOREVER))
        reads = rng.choice(("everything", "everything", "nothing", "a byte"))
        return cls(protocol, data, at_once, rng.choice(EVERY_S), again, reads)

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces to send, without end."""
        if self.at_once:
            yield self.data[: self.at_once]
        for byte in self.data[self.at_once :]:
            yield bytes((byte,))
        for byte in cycle(self.again):
            yield bytes((byte,))


async def _application(scope: Any, receive: Any, send: Any) -> None:
    """Read the request and answer with more than a flow-control window; echo on a WebSocket for WEBSOCKET_S."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        with trio.move_on_after(WEBSOCKET_S):
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        return
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": bytes(20_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _run(server: Server, drip: Drip) -> None:
    """Run one connection until the server ends it.

    Raises:
        Finding: the server did not end the connection within BOUND_S.
    """
    began = trio.current_time()
    async with server.connected() as client:
        stream = client.stream
        if drip.reads != "everything":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with trio.move_on_after(BOUND_S) as scope:
            async with trio.open_nursery() as nursery:
                if drip.reads == "everything":
                    nursery.start_soon(_read, stream, nursery.cancel_scope)
                try:
                    for piece in drip.pieces():
                        await stream.send_all(piece)
                        await trio.sleep(drip.every)
                        if drip.reads == "a byte" and stream.socket.is_readable():
                            await stream.receive_some(1)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # The server has closed the connection.
                nursery.cancel_scope.cancel(reason="the server has closed")
    if scope.cancelled_caught:
        took = trio.current_time() - began
        message = f"the server did not end a connection within {took:.0f} s: {drip}"
        raise Finding(message, [Input(drip.protocol, drip.data)])


async def _read(stream: trio.SocketStream, over: trio.CancelScope) -> None:
    try:
        while await stream.receive_some():
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    over.cancel(reason="the server has closed")


async def try_all(drips: list[Drip], driver: str) -> None:
    """Run several connections concurrently against one server.

    Raises:
        Finding: a connection did not end in time, or a crash was recorded.
    """
    app, found = App(_application), list[Finding]()

    async def one(server: Server, drip: Drip) -> None:
        try:
            await _run(server, drip)
        except Finding as finding:
            found.append(finding)

    async with (
        served(app, driver, LIMITS, keep_alive_timeout=KEEP_ALIVE_S) as server,
        trio.open_nursery() as nursery,
    ):
        for drip in drips:
            nursery.start_soon(one, server, drip)
    if found:
        raise found[0] from None
    crashes = [note for note in app.recorder.logged if note.event.endswith("crashed")]
    if crashes:
        raise Finding(f"a crash: {crashes[0]}", [Input(drip.protocol, drip.data) for drip in drips])


async def _all(protocol: str, seed: int, count: int, progress: Callable[[int], None]) -> None:
    rng = Random(f"drip {protocol} {seed}")
    for done in range(0, count, AT_ONCE):
        drips = [Drip.made(protocol, rng) for _ in range(min(AT_ONCE, count - done))]
        await try_all(drips, DRIVERS[done // AT_ONCE % len(DRIVERS)])
        progress(done + len(drips))


def fuzz_drips(protocol: str, seed: int, count: int, progress: Callable[[int], None] = lambda done: None) -> None:
    """Run ``count`` random connections, determined by ``seed``, on a virtual clock.

    Raises:
        Finding: a connection did not end in time, or a crash was recorded.
    """
    trio.run(_all, protocol, seed, count, progress, clock=trio.testing.MockClock(autojump_threshold=0))


def fuzz_stored(protocol: str, every: float) -> None:
    """Send each stored input byte by byte, ``every`` seconds apart, and then repeat its last bytes for ever.

    Raises:
        Finding: a connection did not end in time, or a crash was recorded.
    """
    drips = [Drip(protocol, data, 0, every, data[-40:], "everything") for data in stored(protocol).values()]
    for driver in DRIVERS:
        trio.run(try_all, drips, driver, clock=trio.testing.MockClock(autojump_threshold=0))
