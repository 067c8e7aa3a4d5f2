"""One byte stream to a peer, plain or TLS, with the two things that a pool needs beyond trio's streams.

Made by ``dial.py``, used by ``connection.py``. A wire can be closed at once without awaiting (a cancelled attempt's
must be), and an idle one can be asked whether it is still quiet.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from typing import ClassVar, Protocol

import trio

GOODBYE_TIMEOUT = 1.0
"""Seconds that a TLS goodbye may take before the socket is closed without."""

RECEIVE_MAX = 64 * 1024
"""Bytes of one read."""


class Wire(Protocol):
    """What a connection sends and receives by. Tests and simulations may bring their own.

    ``send_all`` and ``receive_some`` are those of ``trio.abc.Stream``: one task each at a time, ``b""`` at the end of
    the stream, trio's BrokenResourceError and ClosedResourceError. Sending what can be sent at once need not be a
    checkpoint; receiving always is.
    """

    has_goodbye: ClassVar[bool]
    """Whether ``aclose`` has something to say to the peer, and so may take a while."""

    async def send_all(self, data: bytes) -> None:
        """Send all of it."""

    async def receive_some(self) -> bytes:
        """Receive what is there, at least one byte; empty at the end of the stream."""
        ...

    async def is_quiet(self) -> bool:
        """Whether the peer has sent nothing, not even its end, since the last response. Does not wait."""
        ...

    def close_now(self) -> None:
        """Close at once. A task that sends or receives gets ClosedResourceError. May be called twice."""

    async def aclose(self) -> None:
        """Close politely, but within ``GOODBYE_TIMEOUT`` even if cancelled."""


class PlainWire:
    """A wire over a TCP or Unix socket, which it takes over from ``stream``.

    The socket itself instead of trio's around it: a call sends once and waits once, and trio's wrapping of the two
    costs as much as all else that the pool does (it sees to name resolution, threads and calls that cross; here
    there are none).
    """

    __slots__ = ("_closed", "_fd", "_poll", "_socket")
    has_goodbye: ClassVar[bool] = False

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        self._fd = self._socket.fileno()
        self._closed = False
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    async def send_all(self, data: bytes) -> None:
        """Send all of it. No checkpoint if the socket takes it at once, but nothing is sent in a cancelled scope."""
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self._send(data)
        if sent < len(data):
            with memoryview(data) as view:
                while sent < len(data):
                    await trio.lowlevel.wait_writable(self._fd)
                    sent += self._send(view[sent:])

    def _send(self, data: bytes | memoryview) -> int:
        """Send what the socket takes now."""
        if self._closed:
            raise trio.ClosedResourceError
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"the socket is broken: {error}") from error

    async def receive_some(self) -> bytes:
        """Receive what is there; empty at the end of the stream."""
        # Waits first: nothing is there yet when a request has just gone out, and to find that out costs a system call
        # and an exception.
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return self._socket.recv(RECEIVE_MAX)
            except BlockingIOError:
                continue
            except OSError as error:
                if self._closed:  # Between the wake-up and now.
                    raise trio.ClosedResourceError from error
                raise trio.BrokenResourceError(f"the socket is broken: {error}") from error

    async def is_quiet(self) -> bool:
        """Whether the socket has nothing to read: neither bytes nor an end. No checkpoint, so it may send at once."""
        return not (self._closed or self._poll.poll(0))

    def close_now(self) -> None:
        """Close the socket."""
        if not self._closed:
            self._closed = True
            # Whoever waits must not go on waiting for a number that the next socket may get.
            trio.lowlevel.notify_closing(self._fd)
            self._socket.close()

    async def aclose(self) -> None:
        """Close the socket; plain TCP has no goodbye but its FIN."""
        self.close_now()


class _Dry(Exception):  # noqa: N818 - a signal between two classes of this file, never an error
    """Nothing can be read without waiting."""


class _Transport(trio.abc.Stream):
    """The socket under an SSLStream, in two ways unlike it.

    While ``probing`` a read that would wait raises _Dry. And a failed send is kept in ``send_failure``: raised, it
    would break the SSLStream, and with it the way to an answer that the peer sent before it stopped reading.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.probing = False
        self.send_failure: trio.BrokenResourceError | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as error:
            self.send_failure = error

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.probing and not self.stream.socket.is_readable():
            raise _Dry
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class TlsWire:
    """A wire over TLS. The end of the stream counts only with the peer's ``close_notify``.

    Without one ``receive_some`` raises BrokenResourceError, so that a body that lasts until the end cannot be cut short
    by someone on the way (RFC 9112 section 9.8).
    """

    __slots__ = ("_keep", "_ssl", "_transport", "_verified")
    has_goodbye: ClassVar[bool] = True

    def __init__(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext,
        server_name: str,
        *,
        session: ssl.SSLSession | None = None,
        keep: Callable[[ssl.SSLSession | None], None] = lambda session: None,
    ) -> None:
        """Take a connected socket; ``session`` is offered to the peer, and ``keep`` gets the last one at the end."""
        self._transport = _Transport(stream)
        self._ssl = trio.SSLStream(self._transport, context, server_hostname=server_name)
        self._keep = keep
        self._verified = False
        if session is not None:
            self._ssl.session = session

    async def handshake(self) -> None:
        """Do the TLS handshake. After an error or a cancel the wire can only be closed."""
        await self._ssl.do_handshake()
        self._verified = True

    async def send_all(self, data: bytes) -> None:
        """Send all of it. A cancel in the middle breaks the wire."""
        await self._ssl.send_all(data)
        if self._transport.send_failure is not None:
            raise trio.BrokenResourceError from self._transport.send_failure

    async def receive_some(self) -> bytes:
        """Receive what is there; empty at the peer's ``close_notify``."""
        return bytes(await self._ssl.receive_some())

    async def is_quiet(self) -> bool:
        """Whether no application data is waiting, in the socket or in the TLS layer, and no end.

        TLS records that carry none, such as session tickets, are taken in and do not count.
        """
        self._transport.probing = True
        try:
            await self._ssl.receive_some(1)
        except _Dry:
            return True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        finally:
            self._transport.probing = False
        return False

    def close_now(self) -> None:
        """Close the socket without a goodbye."""
        self._remember()
        self._transport.stream.socket.close()

    def _remember(self) -> None:
        """Hand the session on, once. Not before the end: in TLS 1.3 it comes with what is read after the handshake."""
        if self._verified:
            self._verified = False
            self._keep(self._ssl.session)

    async def aclose(self) -> None:
        """Send ``close_notify`` and close, within ``GOODBYE_TIMEOUT``."""
        self._remember()
        try:
            with trio.move_on_after(GOODBYE_TIMEOUT, shield=True):
                await self._ssl.aclose()
        finally:
            self.close_now()
