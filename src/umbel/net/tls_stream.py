"""A TLS byte stream on the same reader, over ``ssl.MemoryBIO``.

Theory
------
Three places hold bytes on the way in: the socket, the incoming BIO (records that came and are not decrypted), and the
SSL object (a record that is decrypted and not read). epoll reports only the first. So a read asks the SSL object first,
then feeds it from the socket, until it has data or the socket has nothing. A stream that stops reading in between, with
bytes in the BIO or the SSL object, keeps ``_readable`` set: it goes on without an event of the socket.

Whatever the SSL object does may leave bytes in the outgoing BIO, a read too: an alert, or the answer to a KeyUpdate
(which OpenSSL 3.0 puts before the next write).
So the outgoing BIO is emptied into the socket after each operation. Bytes that the socket does not take are kept as on
a plain stream.

The end of the stream counts only with the peer's ``close_notify``. Without one, reading raises BrokenResourceError, so
that a body that lasts until the end of the connection cannot be cut short by somebody on the way (RFC 9112 section
9.8).

Session tickets of TLS 1.3 come after the handshake, with whatever is read first. So the session that a later connection
may resume is asked for when this one closes, and reading takes tickets in without counting them as data.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

import trio

from .epoll import Reader
from .stream import RECEIVE_MAX, TURN_BYTES_MAX, Listener, PlainStream

RECORDS_BYTES = 64 * 1024
"""Bytes that are encrypted at once; a larger message is sent in pieces of this size."""
UNSENT_MAX = 256 * 1024
"""Bytes that wait for the socket at most. Only a peer that makes TLS itself answer, and reads nothing, gets there."""


class TlsStream(PlainStream):
    """A stream over TLS, as its client. Works after ``handshake``; after an error or a cancel it can only be closed."""

    __slots__ = ("_incoming", "_keep_session", "_outgoing", "_ssl", "_verified")

    def __init__(
        self,
        sock: socket.socket,
        reader: Reader,
        context: ssl.SSLContext,
        server_name: str,
        *,
        session: ssl.SSLSession | None = None,
        keep_session: Callable[[ssl.SSLSession | None], None] = lambda session: None,
    ) -> None:
        """Take a connected socket; ``session`` is offered to the peer, and ``keep_session`` gets the last one.

        Raises:
            ValueError: the name is none that TLS can carry. The socket is left open.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        self._keep_session = keep_session
        self._verified = False
        super().__init__(sock, reader)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The state of the TLS connection: protocol, cipher, certificate, session."""
        return self._ssl

    async def handshake(self) -> None:
        """Do the TLS handshake.

        Raises:
            trio.BrokenResourceError: it failed; the cause says why.
            trio.ClosedResourceError: the stream was closed meanwhile.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._reply()
                if not self._feed():
                    await self._wait_readable()
                continue
            except ssl.SSLError as error:
                self._reply()
                raise trio.BrokenResourceError("the TLS handshake failed") from error
            break
        self._verified = True
        self._readable = self._readable or self._incoming.pending > 0
        if not self._flush():
            await self.drained()

    # Receiving.

    def _receive_now(self) -> bytes | None:
        while True:
            try:
                data = self._ssl.read(RECEIVE_MAX)
            except ssl.SSLWantReadError:
                data = None
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                self._reply()
                raise trio.BrokenResourceError("TLS is broken") from error
            if self._outgoing.pending:
                self._reply()
            if data is not None:
                if self._ssl.pending() or self._incoming.pending:
                    self._readable = True  # What epoll knows nothing of.
                return data
            if not self._feed():
                return None

    def _push(self) -> None:
        """Read what is there, and give it to the listener."""
        left = TURN_BYTES_MAX
        while (listener := self._listener) is not None:
            if left <= 0:
                self._reader.call_again(self._socket)
                return
            try:
                data = self._receive_now()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._listener = None
                listener.on_error(error)
                return
            if data is None:
                return
            if not data:
                self._listener = None
                listener.on_eof()
                return
            left -= len(data)
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None

    def _feed(self) -> bool:
        """Move bytes from the socket to the SSL object; False if there are none now.

        Raises:
            as ``PlainStream._receive_now``.
        """
        raw = super()._receive_now()
        if raw is None:
            return False
        if raw:
            self._incoming.write(raw)
        else:
            self._incoming.write_eof()
        return True

    def is_quiet(self) -> bool:
        """Whether no application data, alert or end has come. Session tickets are taken in and do not count."""
        if self._closed:
            return False
        # The loop ends: each round takes something out of the socket, and tickets are all that it may go on after.
        while self._readable or self._poll.poll(0):
            self._readable = True
            try:
                if self._receive_now() is not None:
                    return False
            except trio.BrokenResourceError:
                return False
        return True

    # Sending.

    def send_now(self, data: bytes | memoryview) -> bool:
        """As of a plain stream. ``data`` is encrypted whole, so it should be of ``RECORDS_BYTES`` at most."""
        if self._closed:
            raise trio.ClosedResourceError
        if self.send_error is not None:
            raise self.send_error
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("TLS is broken") from error
        return self._flush()

    def start_exchange(self, data: bytes, listener: Listener) -> None:
        """As of a plain stream."""
        with suppress(trio.BrokenResourceError):
            self.send_now(data)
        self.listen(listener)

    async def send_all(self, data: bytes) -> None:
        """Send all of it, as of a plain stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as view:
            for start in range(0, len(view), RECORDS_BYTES):
                if not self.send_now(view[start : start + RECORDS_BYTES]):
                    await self.drained()

    def _flush(self) -> bool:
        """Hand the outgoing BIO to the socket, behind what it has not taken yet; whether it took all.

        Raises:
            trio.BrokenResourceError: the connection is broken.
        """
        data = self._outgoing.read()
        if self.unsent:
            if len(self.unsent) + len(data) > UNSENT_MAX:
                self.send_error = trio.BrokenResourceError("the peer makes TLS answer, and does not read")
                raise self.send_error
            self.unsent = bytes(self.unsent) + data
            return False
        return not data or self._hand_over(data)

    def _reply(self) -> None:
        """Send what the SSL object says by itself: its part of the handshake, an answer to a KeyUpdate, an alert.

        Where that fails, whoever sends is told at its next attempt. Whoever reads may still get what the peer sent
        before it stopped reading.
        """
        with suppress(trio.BrokenResourceError):
            self._flush()

    # The end.

    def close(self) -> None:
        """Close, and tell the peer so by ``close_notify`` if the socket takes it at once."""
        if not self._closed and self._verified and not self.unsent:
            # unwrap() writes our close_notify first, and then wants the peer's, for which nobody waits.
            with suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._reply()
        self.close_now()

    def close_now(self) -> None:
        """Close at once without a goodbye, whatever is going on. May be called twice."""
        if not self._closed and self._verified:
            self._keep_session(self._ssl.session)
        super().close_now()
