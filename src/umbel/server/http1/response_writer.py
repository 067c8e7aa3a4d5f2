"""Writing to a client of HTTP/1.1: what the socket does not take at once is kept, and sent in order.

Theory
------
*Order.* Bytes that the socket does not take wait in ``stream.unsent`` and then ``_unsent``, and each later write goes
behind them. A task waits for the socket in ``send_rest``, within the bounds of ``WriteClock``.

*The last bytes of a response* need not be sent at once if the connection then waits for the next request: they are sent
at the end of the turn of the event loop, one right after the other for all clients (``send_last``). A process that
sleeps is woken by each send, which takes more time than the rest of the send; several sends in a row wake it once. If
the socket does not take everything then, nobody waits for the rest: so the task of the connection is woken, finds
``rest_is_due``, and calls ``send_rest`` before it waits for the next request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..limits.client_clocks import PIECE, WriteClock

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..state import ServerState


class ResponseWriter:
    """The writing half of an HTTP/1.1 connection; see the module."""

    def __init__(self, server: ServerState, stream: PlainStream) -> None:
        self.server = server
        self.stream = stream
        self.buffer = b""
        """Bytes that were read and not used yet."""
        self.lingers = False
        """Whether the client may still be sending when the connection ends."""
        self.rest_is_due = False
        """Whether ``send_last`` has left bytes that no task waits for."""
        self._clock: WriteClock | None = None
        """Made, like ``_sending``, for the first write that must wait."""
        self._sending: trio.Lock | None = None
        """Held by the task that waits for the socket: several tasks of an application may send."""
        self._sent_now = 0
        """Bytes that the socket took without a wait and that ``_clock`` has not counted yet."""
        self._unsent: list[memoryview] = []
        """Bytes that the stream gets after those that it keeps itself (``stream.unsent``)."""

    def send_now(self, data: bytes) -> bool:
        """Send what the socket takes without a wait, and keep the rest for ``send_rest``. Return whether it took all.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the client has gone.
        """
        stream, size = self.stream, len(data)
        # Bytes of an earlier write still wait, for instance after a cancel. These must not overtake them.
        if self._unsent or stream.unsent:
            self._unsent.append(memoryview(data))
            return False
        if size <= PIECE:
            if stream.send_now(data):
                self._sent_now += size
                return True
            return False
        # At most one piece waits inside of the stream: the write clock allows a time for each piece.
        given = stream.send_part(data)
        waiting = len(stream.unsent)
        self._sent_now += max(0, given - waiting)  # Negative: of TLS more may wait than a small rest of ``data``.
        if given < size:
            self._unsent.append(memoryview(data)[given:])
        return not waiting

    def send_last(self, data: bytes) -> bool:
        """As ``send_now``, but send at the end of the turn; see the module. Only if the connection stays open.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as ``send_now``.
        """
        size, stream = len(data), self.stream
        # With bytes in ``buffer`` the next request is served in this turn.
        if size > PIECE or self.buffer or self._unsent or stream.unsent or not stream.send_soon(data, self._has_rest):
            return self.send_now(data)
        self._sent_now += size
        return True

    def _has_rest(self) -> None:
        """Have the connection's task call ``send_rest``, unless it sends for a next request already."""
        self._sent_now = max(0, self._sent_now - len(self.stream.unsent))
        self.rest_is_due = True
        self.stream.wake_receiver()

    async def send_rest(self) -> None:
        """Wait until the socket has taken every kept byte. ``WriteClock`` bounds the waits.

        Cancelled, the bytes stay kept, and every later write goes behind them.

        Raises:
            trio.TooSlowError: the client accepted less than 64 KiB within ``write_timeout``, or a drain is over.
            trio.BrokenResourceError, trio.ClosedResourceError: the client has gone.
        """
        self.rest_is_due = False
        if self._sending is None:
            self._sending = trio.Lock()
            self._clock = WriteClock(self.server)
        assert self._clock is not None
        async with self._sending:
            try:
                await self._send_rest(self._clock)
            except trio.TooSlowError:
                self.lingers = False  # A client that does not read would not read the last response either.
                raise

    async def _send_rest(self, clock: WriteClock) -> None:
        stream, unsent = self.stream, self._unsent
        clock.took(self._sent_now)
        self._sent_now = 0
        while stream.unsent or unsent:
            size = len(stream.unsent)
            if size:
                with trio.CancelScope(deadline=clock.begin()) as scope:
                    try:
                        await stream.drained()
                    finally:
                        await clock.end_write()
                if scope.cancelled_caught:
                    # epoll reports a socket writable only when a large part of its buffer is free. A slow client may
                    # have made room without such a report, so one more send decides.
                    stream.send_more()
                    if len(stream.unsent) == size:
                        raise trio.TooSlowError
                clock.took(size - len(stream.unsent))
                continue
            piece, rest = unsent[0][: clock.room], unsent[0][clock.room :]
            # Taken off before the send: on a cancel the piece is in the stream, and must not be sent again from here.
            unsent[:1] = [rest] if rest else []
            if stream.send_now(piece):
                clock.took(len(piece))
