"""One byte stream to a client, plain or TLS, as HTTP/1.1 uses it.

A plain one is a bare socket: an answer is one system call, and trio's wrapping of it would cost as much as the
parsing of the request.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from typing import Protocol

import trio

from .clocks import WriteClock

RECEIVE_MAX = 64 * 1024
"""Bytes of one read."""
READ_NOW_MAX = 16 * 1024
"""Bytes of one read where a head is expected: a larger room costs more to make than it is used."""
LINGER_TIMEOUT = 2.0
"""Seconds that a client gets to read a last answer, where it may still be sending."""
LINGER_MAX = 256 * 1024
"""Bytes that are read meanwhile. A socket that is closed with bytes unread takes its last answer back."""
GOODBYE_TIMEOUT = 1.0
"""Seconds that a TLS goodbye may take before the socket is closed without."""


_AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: nothing is sent any more but a RST."""

AnyStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Wire(Protocol):
    """What a connection reads and writes by. One task at a time may receive, and one may send."""

    @property
    def fd(self) -> int:
        """The socket's descriptor."""
        ...

    async def receive(self) -> bytes:
        """What is there; empty at the end of the stream, however it ended.

        Raises:
            trio.ClosedResourceError: ``interrupt`` was called.
        """
        ...

    def receive_now(self) -> bytes | None:
        """What is there without waiting; empty at the end of the stream, None if that is nothing or unknown."""
        ...

    def send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting; the count of bytes.

        Raises:
            trio.BrokenResourceError: the client has gone.
        """
        ...

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of it.

        Raises:
            trio.BrokenResourceError: the client has gone.
            trio.ClosedResourceError: ``interrupt`` was called.
        """
        ...

    def interrupt(self) -> None:
        """Wake whoever receives or sends; they raise ``trio.ClosedResourceError``. The wire can be used on."""

    def end(self) -> None:
        """Send the end of the stream, if that can be done without closing. Never raises."""

    def cut(self) -> None:
        """Have the closing look like a fault to the peer, which would take an end for the end of an answer."""

    async def aclose(self) -> None:
        """Close, politely where that is quick, even if cancelled."""

    def stream(self) -> AnyStream:
        """The same as a stream of trio's; the wire must not be used any more."""
        ...


class PlainWire:
    """A wire over a TCP or Unix socket, which it takes over."""

    __slots__ = ("_socket", "fd")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.fd = sock.fileno()

    def receive_now(self, room: int = READ_NOW_MAX) -> bytes | None:
        """What is there, up to ``room``; empty at the end of the stream, None if there is nothing yet."""
        try:
            return self._socket.recv(room)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def receive(self) -> bytes:
        """Receive what is there."""
        # Waits first: mostly nothing is there yet, and to find that out costs a system call and an exception.
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if (data := self.receive_now(RECEIVE_MAX)) is not None:
                return data

    def send_now(self, data: bytes) -> int:
        """Send what the socket takes now."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting first."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                await trio.lowlevel.wait_writable(self.fd)
                try:
                    sent += self._socket.send(view[sent:])
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise trio.BrokenResourceError from error

    def interrupt(self) -> None:
        """Wake whoever waits."""
        trio.lowlevel.notify_closing(self.fd)

    def end(self) -> None:
        """Send a FIN."""
        with suppress(OSError):  # It may have gone already.
            self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Close with a RST."""
        with suppress(OSError):  # It may have gone already.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:  # Else the number may be another connection's by now.
            trio.lowlevel.notify_closing(self.fd)
            self._socket.close()

    async def aclose(self) -> None:
        """Close the socket; plain TCP has no goodbye but its FIN."""
        self.close()

    def stream(self) -> trio.SocketStream:
        """The socket as trio's stream."""
        return trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))


class TlsWire:
    """A wire over TLS that has shaken hands."""

    __slots__ = ("_is_cut", "_stream", "fd")

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._is_cut = False
        self.fd = stream.transport_stream.socket.fileno()

    async def receive(self) -> bytes:
        """Receive what is there."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_MAX))
        except trio.BrokenResourceError:
            return b""

    def receive_now(self) -> bytes | None:
        """None: what TLS has is not known without waiting."""
        return None

    def send_now(self, data: bytes) -> int:
        """Nothing: what TLS makes of it is not known to fit."""
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send all of it. A cancel in the middle breaks the wire."""
        await self._stream.send_all(data)

    def interrupt(self) -> None:
        """Wake whoever waits for the socket below."""
        trio.lowlevel.notify_closing(self.fd)

    def end(self) -> None:
        """Nothing: TLS ends with the closing."""

    def cut(self) -> None:
        """Close without ``close_notify`` (RFC 9112 section 9.8)."""
        self._is_cut = True

    async def aclose(self) -> None:
        """Send ``close_notify`` and close, within ``GOODBYE_TIMEOUT``."""
        if self._is_cut:
            await trio.aclose_forcefully(self._stream)
            return
        with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
            with suppress(trio.BrokenResourceError):  # It may have gone already; the socket is closed all the same.
                await self._stream.aclose()
        await trio.aclose_forcefully(self._stream)

    def stream(self) -> trio.SSLStream[trio.SocketStream]:
        """The TLS stream itself."""
        return self._stream


def has_left(fd: int) -> bool:
    """Whether the peer has sent its last byte already, read or not. Where the system cannot tell, it has not."""
    if not hasattr(select, "POLLRDHUP"):
        return False
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


async def send_in_pieces(wire: Wire, data: bytes, sent: int, clock: WriteClock) -> None:
    """Send what comes after the first ``sent`` bytes, as fast as ``clock`` demands.

    Raises:
        trio.TooSlowError: a piece was not accepted in time.
        trio.BrokenResourceError: the client has gone.
    """
    with memoryview(data) as view:
        while sent < len(view):
            piece = view[sent : sent + clock.room]
            with trio.CancelScope(deadline=clock.begin()) as scope:
                try:
                    await wire.send_all(piece)
                finally:
                    await clock.end_write()
            if scope.cancelled_caught:
                raise trio.TooSlowError
            clock.took(len(piece))
            sent += len(piece)


async def linger(wire: Wire) -> None:
    """End our sending, and read on for a moment, so that the client gets to read our last answer."""
    wire.end()
    left = LINGER_MAX
    with trio.move_on_after(LINGER_TIMEOUT), suppress(trio.ClosedResourceError):
        while left > 0 and (data := await wire.receive()):
            left -= len(data)
