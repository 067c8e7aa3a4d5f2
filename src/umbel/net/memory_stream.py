"""Connections in memory: streams as over sockets, without the kernel, for tests and simulations on a virtual clock.

Theory
------
``MemoryStream`` is a ``PlainStream`` whose socket is a ``MemorySocket``, one end of a pair of buffers. Everything above
the system calls is the code that also serves sockets: pushing and pulling, flow control, half-closes, resets, and the
notifications of the reader.

*What a socket does here.* ``send`` moves bytes to the peer's buffer, at most ``BUFFER_BYTES``. ``shutdown`` ends one
direction. ``close`` ends both; with unread bytes, or after ``SO_LINGER`` was set to 0, it resets the connection, as TCP
does. A peer reads what had arrived before a reset, and then gets ECONNRESET.

*The reader.* A change of a socket (bytes, an end, room to send) is noted, and reported by the reader's task in a later
turn of the scheduler. So no handler ever runs within a call of the other side, which is also true of sockets. Nothing
takes time: what is sent at one moment of the clock is received at the same moment.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import trio

from .epoll import BROKEN, ENDED, READABLE, WRITABLE, Handler
from .stream import PlainStream, Poll

BUFFER_BYTES = 64 * 1024
"""Bytes that one direction of a connection holds before ``send`` blocks."""
_END = ENDED & ~BROKEN


class MemoryReader:
    """``Reader`` of memory sockets. Handlers are called while ``run`` runs."""

    reports_each_change: ClassVar[bool] = True

    def __init__(self) -> None:
        self.now = self.turn_began = 0.0
        self._handlers: dict[Any, Handler] = {}
        self._changed: dict[Any, None] = {}
        self._in_batch = False
        self._to_call: list[Callable[[], object]] = []
        self._wake = trio.Event()

    def __len__(self) -> int:
        """Number of registered sockets."""
        return len(self._handlers)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Call handlers until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self.now, self.turn_began = trio.current_time(), perf_counter()
            changed, self._changed = self._changed, {}
            self._in_batch = True
            for sock in changed:
                # A handler of this turn may have closed the socket.
                if (handler := self._handlers.get(sock)) is not None:
                    handler(sock.events())
            self._in_batch = False
            callbacks, self._to_call = self._to_call, []
            for callback in callbacks:
                callback()

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the batch, or at once outside of a batch; see ``Reader``."""
        if self._in_batch:
            self._to_call.append(callback)
        else:
            callback()

    def at_turn_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at once: a send in memory wakes nobody from a sleep of the system; see ``Reader``."""
        callback()

    def note_change(self, sock: MemorySocket) -> None:
        """Have the handler of ``sock`` called in a later turn of the scheduler, if it is registered then."""
        self._changed[sock] = None
        self._wake.set()

    def register(self, sock: Any, handler: Handler) -> None:
        """Call ``handler`` at each change of ``sock``; see ``Reader``."""
        self._handlers[sock] = handler

    def call_again(self, sock: Any) -> None:
        """Call the handler of ``sock`` once more, in a later turn of the scheduler; see ``Reader``."""
        self.note_change(sock)

    def watch_again(self, sock: Any, event: int) -> None:
        """Do nothing: each change is reported."""

    def close(self, sock: Any) -> None:
        """Remove the registration of ``sock``, if there is one, and close ``sock``; see ``Reader``."""
        self._handlers.pop(sock, None)
        sock.close()


class MemorySocket:
    """One end of a connection in memory, with the methods of a non-blocking socket that ``PlainStream`` calls.

    Errors are the ``OSError`` that the same call of a TCP socket raises.
    """

    def __init__(self, reader: MemoryReader) -> None:
        self._reader = reader
        self._peer: MemorySocket
        self._received = bytearray()
        self._ended = self._broken = self._shut = self._closed = self._resets = False

    @classmethod
    def pair(cls, reader: MemoryReader) -> tuple[MemorySocket, MemorySocket]:
        """The two ends of a new connection."""
        one, other = cls(reader), cls(reader)
        one._peer, other._peer = other, one
        return one, other

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket never blocks."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Take up to ``size`` received bytes; ``b""`` at the end. With ``MSG_PEEK`` they stay in the buffer."""
        if self._closed:
            raise _error(errno.EBADF)
        if self._received:
            data = bytes(self._received[:size])
            if not flags & socket.MSG_PEEK:
                was_full = len(self._received) >= BUFFER_BYTES
                del self._received[:size]
                if was_full:
                    self._reader.note_change(self._peer)
            return data
        if self._broken:
            raise _error(errno.ECONNRESET)
        if self._ended:
            return b""
        raise _error(errno.EAGAIN)

    def send(self, data: bytes | memoryview) -> int:
        """Give bytes to the peer, as many as its buffer takes, and return their number."""
        if self._closed:
            raise _error(errno.EBADF)
        peer = self._peer
        if self._shut or self._broken or peer._closed:
            raise _error(errno.EPIPE)
        room = BUFFER_BYTES - len(peer._received)
        if not room:
            raise _error(errno.EAGAIN)
        taken = bytes(data[:room])
        if taken:
            peer._received += taken
            self._reader.note_change(peer)
        return len(taken)

    def shutdown(self, how: int) -> None:
        """End the sending direction; ``how`` is ``SHUT_WR``."""
        if self._closed or self._broken:
            raise _error(errno.ENOTCONN)
        if not self._shut:
            self._shut = True
            self._peer._ended = True
            self._reader.note_change(self._peer)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Make ``close`` reset the connection (``SO_LINGER`` of 0 seconds)."""
        self._resets = True

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:
        """Raise ENOPROTOOPT: there is no TCP."""
        raise _error(errno.ENOPROTOOPT)

    def close(self) -> None:
        """Close this end. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._resets or self._received:
            self._peer._broken = True
        self._peer._ended = True
        self._received.clear()
        self._reader.note_change(self._peer)

    def events(self) -> int:
        """What the socket is ready for, as bits of READABLE, WRITABLE and ENDED."""
        if self._closed:
            return BROKEN
        events = READABLE if self._received or self._ended or self._broken else 0
        if self._broken or self._peer._closed or len(self._peer._received) < BUFFER_BYTES:
            events |= WRITABLE
        if self._ended:
            events |= _END
        if self._broken or (self._ended and self._shut):
            events |= BROKEN
        return events

    def poll(self, timeout: float, /) -> list[tuple[int, int]]:
        """The events but WRITABLE, as ``select.poll`` gives them."""
        events = self.events() & ~WRITABLE
        return [(0, events)] if events else []

    @property
    def unread(self) -> int:
        """Number of received bytes that were not taken yet."""
        return len(self._received)


class MemoryStream(PlainStream):
    """Byte stream over one end of a connection in memory; see the module."""

    __slots__ = ()

    def __init__(self, sock: MemorySocket, reader: MemoryReader) -> None:
        as_socket: Any = sock
        super().__init__(as_socket, reader)

    @staticmethod
    def _new_poll(sock: Any) -> Poll:
        poll: Poll = sock
        return poll

    def unread(self) -> int:
        """The number of bytes that have arrived and that were not read yet; 0 if closed."""
        sock: Any = self._socket
        return 0 if self._closed else int(sock.unread)


def memory_stream_pair(reader: MemoryReader) -> tuple[MemoryStream, MemoryStream]:
    """The streams of both ends of a new connection. ``reader`` must run while they are used."""
    one, other = MemorySocket.pair(reader)
    return MemoryStream(one, reader), MemoryStream(other, reader)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
