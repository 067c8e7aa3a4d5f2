"""Tunnel: the bytes of a WebSocket between a client and an upstream, in both directions, after the 101.

Theory
------
**Problem.** The gateway need not understand the messages of a WebSocket to pass them on. It must know one thing: where
a frame ends. When the server drains, each side gets a close frame with the code 1012 (service restart), and a close
frame in the middle of another frame would corrupt the stream.

**Directions.** Each direction has a task that receives from one side and sends to the other. It reads on only when the
bytes before were sent, so a slow receiver makes the sender wait, and at most one read (64 KiB) is in memory. A
``FrameTracker`` follows the heads of the frames that pass.

**The end.** A WebSocket ends by close frames, which pass like any other frame, and then by the end of the connection.
When a direction ends after a close frame of either side, the other one goes on for ``CLOSE_SECONDS``. Without a close
frame, a side that ends its sending has left: the connection of the upstream is closed in the same step, and both
directions end. So they do if a side is broken or does not read, and if a time limit of the call has passed
(``core.call.StreamLimits``).

**Drain.** ``drain`` closes both directions after a random delay, so that the clients of a worker do not all come back
at once. A direction between two frames is closed at once; within a frame it is closed when the frame has passed. What
comes after the gateway's close frame is dropped. A direction without a boundary within ``CLOSE_SECONDS`` is cut.

**Sending.** The close frame and the bytes of a direction are sent under one lock, so that neither cuts the other.

**Cancellation.** A cancel of ``run`` ends both directions. The caller closes the connection of the upstream.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from ...core.errors import UpstreamError
from ...core.inbound import ClientGoneError
from ...server.websocket.frame_tracker import FrameTracker

if TYPE_CHECKING:
    from ...core.call import UpgradedStream
    from ...core.inbound import ByteStream
    from ...net.timers import Timer, TimerQueue

CLOSE_SECONDS = 1.0
"""The longest wait for the end of a frame, and then for the other side's close, when the server drains."""
FRAMES_PER_TURN = 500
"""Frames that are followed before a checkpoint: a client may send ten thousand empty ones in 64 KiB."""
_SERVICE_RESTART = (1012).to_bytes(2, "big")
_CLOSE, _MASKED = 0x88, 0x80
"""The first byte of a close frame, and the bit of the second byte that says that a mask follows."""
_ENDS = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ClientGoneError, UpstreamError)
"""What ends a tunnel at once."""


class Source(Protocol):
    """The side from which the bytes of a direction come."""

    async def receive_some(self) -> bytes:
        """Receive at least one byte; ``b""`` at the end of the side's sending."""
        ...


class Sink(Protocol):
    """The side to which the bytes of a direction go."""

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``."""

    async def send_eof(self) -> None:
        """End the sending to this side."""


class _UpstreamSide:
    """An upstream's connection as the sink of a direction."""

    def __init__(self, stream: UpgradedStream) -> None:
        self.send_all = stream.send_all
        self._stream = stream

    async def send_eof(self) -> None:
        self._stream.send_eof()


class Direction:
    """One direction of a tunnel: from ``source`` to ``sink``.

    Args:
        masked: whether frames to ``sink`` are masked: those to a server are (RFC 6455 section 5.3).
    """

    def __init__(self, source: Source, sink: Sink, *, masked: bool) -> None:
        self._source, self._sink, self._masked = source, sink, masked
        self._frames = FrameTracker()
        self._lock = trio.Lock()
        self._closing = False
        """Whether a close frame is due at the next boundary."""
        self._closed_by_gateway = False
        self.closed = trio.Event()
        """Set when the gateway's close frame was sent, or the direction has ended."""

    @property
    def has_closed(self) -> bool:
        """Whether a close frame has passed, of the source or of the gateway."""
        return self._frames.closed or self._closed_by_gateway

    async def run(self) -> None:
        """Pass bytes on until the source ends its sending.

        Raises:
            OSError or a trio error: a side is broken, does not read, or was closed.
        """
        try:
            while data := await self._source.receive_some():
                async with self._lock:
                    if not self.closed.is_set():
                        await self._pass_on(data)
        finally:
            self.closed.set()

    async def end(self) -> None:
        """End the sending to the sink, behind all that was sent to it. Raises as ``run``."""
        async with self._lock:
            await self._sink.send_eof()

    async def drop(self) -> None:
        """Receive to the end of the source's sending, and send nothing.

        Otherwise the close of a socket with unread bytes would send a RST, and the source would lose the last frame.
        """
        with suppress(*_ENDS):
            while await self._source.receive_some():
                pass

    async def _pass_on(self, data: bytes) -> None:
        """Send ``data``; if a close is due, only to the end of the present frame, and then the close frame."""
        if self._closing:
            data = data[: self._frames.feed_frame(data)]
        else:
            at = 0
            while (at := self._frames.feed_some(data, at, FRAMES_PER_TURN)) < len(data):
                await trio.lowlevel.checkpoint()
        await self._sink.send_all(data)
        if self._closing and not (self._frames.inside or self._frames.closed):
            await self._send_close()

    async def close(self) -> None:
        """Send a close frame with 1012 at the next boundary. Returns when it was sent, or the direction has ended."""
        self._closing = True
        async with self._lock:
            if not (self.closed.is_set() or self._frames.inside or self._frames.closed):
                await self._send_close()
        await self.closed.wait()

    async def _send_close(self) -> None:
        """Send the close frame. The caller holds the lock, and no frame is incomplete."""
        payload = _SERVICE_RESTART
        if self._masked:
            key = secrets.token_bytes(4)
            payload = key + bytes(byte ^ key[place] for place, byte in enumerate(payload))
        await self._sink.send_all(bytes((_CLOSE, (_MASKED if self._masked else 0) | 2)) + payload)
        self._closed_by_gateway = True
        self.closed.set()


class Tunnel:
    """The two directions of a WebSocket; see the module.

    Args:
        client: the client's side.
        upstream: the upstream's side.
        timers: the timer queue of the application.
    """

    def __init__(self, client: ByteStream, upstream: UpgradedStream, timers: TimerQueue) -> None:
        self._timers, self._upstream = timers, upstream
        self._up = Direction(client, _UpstreamSide(upstream), masked=True)
        self._down = Direction(upstream, client, masked=False)
        self._drain_timer: Timer | None = None
        self._nursery: trio.Nursery | None = None
        self._drain_delay: float | None = None
        self.error: Exception | None = None
        """The first error of a direction, without its traceback; None: there was none."""
        self.end = ""
        """Why the tunnel has ended, in words for records; empty: by the end of a side's sending."""

    async def run(self) -> None:
        """Pass bytes in both directions until the end of the WebSocket."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._drain_delay is not None:
                    self.drain(self._drain_delay)
                nursery.start_soon(self._run, self._up, nursery)
                nursery.start_soon(self._run, self._down, nursery)
        finally:
            self._nursery = None
            if self._drain_timer is not None:
                self._drain_timer.cancel()

    async def _run(self, direction: Direction, nursery: trio.Nursery) -> None:
        why, broken = "a side has left without a close frame", False
        try:
            await direction.run()
        except _ENDS as error:
            why, broken = str(error) or type(error).__name__, True
            self.error = self.error or error.with_traceback(None)
        if not (self._up.has_closed or self._down.has_closed):
            self._cut(why)
            return
        nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, trio.current_time() + CLOSE_SECONDS)
        with suppress(*_ENDS):
            if not broken:
                await direction.end()
        await direction.drop()

    def _cut(self, why: str) -> None:
        """Close the connection of the upstream, and end both directions at once."""
        self._upstream.close_now()
        if self._nursery is not None:
            self.end = self.end or why
            self._nursery.cancel_scope.cancel(reason=why)

    def client_gone(self) -> None:
        """End both directions at once, because the client has left. A callback of ``InboundRequest.on_gone``."""
        self._cut("the client has left")

    def drain(self, delay: float) -> None:
        """Close both directions in ``delay`` seconds. Does not wait; a callback of ``InboundRequest.on_drain``."""
        self._drain_delay = delay
        if self._nursery is not None and self._drain_timer is None:
            self._drain_timer = self._timers.add(trio.current_time() + delay, self._begin_close)

    def _begin_close(self) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._close)

    async def _close(self) -> None:
        """Send both close frames, each at its next boundary, and end the tunnel ``CLOSE_SECONDS`` later."""
        assert self._nursery is not None
        scope = self._nursery.cancel_scope
        self.end = self.end or "the server drains"
        with trio.move_on_after(CLOSE_SECONDS) as bound:
            async with trio.open_nursery() as closing:
                closing.start_soon(self._close_one, self._up)
                closing.start_soon(self._close_one, self._down)
        if bound.cancelled_caught:
            self._cut("the server drains, and no frame has ended in time")
            return
        scope.deadline = min(scope.deadline, trio.current_time() + CLOSE_SECONDS)

    async def _close_one(self, direction: Direction) -> None:
        try:
            await direction.close()
        except _ENDS as error:
            self._cut(str(error) or type(error).__name__)
