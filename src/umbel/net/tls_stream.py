"""TLS byte stream over ``ssl.MemoryBIO`` on a watched socket, for clients and servers.

Theory
------
Three places hold bytes on the way in: the socket, the incoming BIO (records that came and are not decrypted), and the
SSL object (a record that is decrypted and not read). epoll reports only the first. So a read asks the SSL object first,
then feeds it from the socket, until it has data or the socket has nothing. A stream that stops reading in between, with
bytes in the BIO or the SSL object, keeps ``_readable`` set: it goes on without an event of the socket.
``_needs_bytes`` says that neither of the two has anything: then a read begins with the socket.

Whatever the SSL object does may leave bytes in the outgoing BIO, a read too: an alert, or the answer to a KeyUpdate
(which OpenSSL 3.0 puts before the next write).
So the outgoing BIO is emptied into the socket after each operation. Bytes that the socket does not take are kept as on
a plain stream.

A BIO never gives memory back. So no more than about a record goes through one at a time (``FEED_BYTES``,
``RECORD_BYTES``): a connection that moved much and is idle now costs little more than one that moved nothing.

Records without data (KeyUpdate, session tickets, handshakes that are refused) cost time, some 50 us for a KeyUpdate of
27 bytes, and the SSL object reads on after them by itself. So it gets ``FEED_BYTES`` at a time, which bounds one turn;
and a peer that sends more than ``DATALESS_MAX`` of them in a row is cut off, so that each turn brings data or an end.

The end of the stream counts only with the peer's ``close_notify``. Without one, reading raises BrokenResourceError, so
that a body that lasts until the end of the connection cannot be cut short by somebody on the way (RFC 9112 section
9.8). The SSL object does not hear of such an end, after which it would refuse to send: a peer that has closed its half
of the TCP connection can still be answered. After ``close_notify`` of one side, the other side can send on.

Session tickets of TLS 1.3 come after the handshake, with whatever is read first. So the session that a later connection
may resume is asked for when this one closes, and reading takes tickets in without counting them as data. A server keeps
nothing of its own: its tickets carry the session, under keys of the context.

Renegotiation (TLS 1.2) is refused: it lets the peer cause work of a handshake again and again.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import trio

from .epoll import Reader
from .stream import RECEIVE_MAX, TURN_BYTES_MAX, Listener, PlainStream

RECORDS_BYTES = 64 * 1024
"""Bytes of a message that are encrypted and handed to the socket at once; a larger one is sent in such pieces."""
RECORD_BYTES = 16 * 1024
"""Data that one record carries at most."""
FEED_BYTES = RECORD_BYTES + 512
"""Bytes of one read from the socket: a record with its frame."""
RECORD_COST = 512
"""Bytes that take about as long to push as what each record costs beside its data: records may have one byte each."""
UNSENT_MAX = 256 * 1024
"""Bytes that wait for the socket at most. Only a peer that makes TLS itself answer, and reads nothing, gets there."""
DATALESS_MAX = 24 * 1024
"""Received bytes in a row that may bring no data. One record that is not complete yet takes up to ``FEED_BYTES``."""


class TlsStream(PlainStream):
    """A stream over TLS. Works after ``handshake``; after an error or a cancel it can only be closed.

    The constructor makes a client's stream, ``serving`` a server's.
    """

    __slots__ = (
        "_close_notify_due",
        "_dataless",
        "_decrypted",
        "_incoming",
        "_keep_session",
        "_needs_bytes",
        "_outgoing",
        "_ssl",
        "_verified",
        "alpn",
        "client_certificate",
    )

    def __init__(
        self,
        sock: socket.socket,
        reader: Reader,
        context: ssl.SSLContext,
        server_name: str | None,
        *,
        session: ssl.SSLSession | None = None,
        keep_session: Callable[[ssl.SSLSession | None], None] | None = None,
        server_side: bool = False,
    ) -> None:
        """Take a connected socket; ``session`` is offered to the peer, and ``keep_session`` gets the last one.

        Raises:
            ValueError: the name is none that TLS can carry. The socket is left open.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name, session)
        self._keep_session = keep_session
        self._verified = False
        self._close_notify_due = False
        self._needs_bytes = False
        self._decrypted = b""
        self._dataless = 0
        self.alpn: str | None = None
        """The protocol that both sides have agreed on in the handshake; None: they have not spoken of it."""
        self.client_certificate: bytes | None = None
        """The certificate (DER) that the client has shown, and this side, the server, has verified."""
        super().__init__(sock, reader)

    @classmethod
    def serving(cls, sock: socket.socket, reader: Reader, context: ssl.SSLContext) -> Self:
        """A server's stream over an accepted socket. ``context`` gets the option to refuse renegotiation.

        Raises:
            OSError: the system refuses another registration. The socket is left open.
        """
        if not context.options & ssl.OP_NO_RENEGOTIATION:
            context.options |= ssl.OP_NO_RENEGOTIATION
        return cls(sock, reader, context, None, server_side=True)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The state of the TLS connection: protocol, cipher, certificate, session."""
        return self._ssl

    async def handshake(self) -> None:
        """Do the TLS handshake. It has no bound in time.

        Raises:
            trio.BrokenResourceError: it failed; the cause says why.
            trio.ClosedResourceError: the stream was closed meanwhile.
            trio.TooSlowError: ``stop_receiving`` was called.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._reply()
                if not self._feed():
                    await self.wait_readable()
                continue
            except ssl.SSLError as error:
                self._reply()
                raise trio.BrokenResourceError("the TLS handshake failed") from error
            break
        self._verified = self._close_notify_due = True
        self._dataless = 0
        self.alpn = self._ssl.selected_alpn_protocol()
        if self._ssl.server_side and self._ssl.context.verify_mode != ssl.CERT_NONE:
            self.client_certificate = self._ssl.getpeercert(binary_form=True)
        self._readable = self._readable or self._incoming.pending > 0
        if not self._flush():
            await self.drained()

    # Receiving.

    def receive_now(self, limit: int = RECEIVE_MAX) -> bytes | None:
        """As of a plain stream; one record at most."""
        if self._needs_bytes:
            if not self._feed():
                return None
        elif self._decrypted:
            data, self._decrypted = self._decrypted[:limit], self._decrypted[limit:]
            self._readable = True
            return data
        while True:
            try:
                data = self._ssl.read(limit if limit < RECORD_BYTES else RECORD_BYTES)
            except ssl.SSLWantReadError:
                self._needs_bytes = True
            except ssl.SSLZeroReturnError:
                data = b""
                break
            except ssl.SSLError as error:
                self._reply()
                raise trio.BrokenResourceError("TLS is broken") from error
            else:
                break
            if self._outgoing.pending:
                self._reply()
            if not self._feed():
                return None
        if self._outgoing.pending:
            self._reply()
        if data:
            self._dataless = 0
            self._needs_bytes = not (self._ssl.pending() or self._incoming.pending)
        else:
            self._needs_bytes = False  # The SSL object has the end, and says so at each read.
        if not self._needs_bytes:
            self._readable = True  # What epoll knows nothing of.
        return data

    def _push(self) -> None:
        """Read what is there, and give it to the listener."""
        left = TURN_BYTES_MAX
        while (listener := self._listener) is not None:
            if left <= 0:
                self._reader.call_again(self._socket)
                return
            try:
                data = self.receive_now()
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
            left -= len(data) + RECORD_COST
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None

    def _feed(self) -> bool:
        """Move bytes from the socket to the SSL object; False if there are none now.

        Raises:
            trio.BrokenResourceError: the connection is broken or has ended, or the peer sends records without data.
            trio.ClosedResourceError: the stream is closed.
        """
        raw = super().receive_now(FEED_BYTES)
        if raw is None:
            return False
        if not raw:
            cause = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without close_notify")
            raise trio.BrokenResourceError("the peer has ended TCP, not TLS") from cause
        if self._dataless > DATALESS_MAX and self._verified:  # What a handshake may take, OpenSSL bounds itself.
            raise trio.BrokenResourceError("the peer sends records without data")
        self._dataless += len(raw)
        self._incoming.write(raw)
        self._needs_bytes = False
        return True

    def is_quiet(self) -> bool:
        """Whether no application data, alert or end has come. Session tickets are taken in and do not count."""
        if self._closed:
            return False
        # The loop ends: each round takes something out of the socket, and tickets are all that it may go on after.
        while self._readable or self._poll.poll(0):
            self._readable = True
            try:
                if self.receive_now() is not None:
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
            if len(data) > RECORD_BYTES:
                return self._flush(self._encrypted(data))
            if data:
                self._ssl.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("TLS is broken") from error
        return self._flush()

    def _encrypted(self, data: bytes | memoryview) -> bytes:
        """The records of ``data``, taken out of the BIO one by one."""
        records = []
        with memoryview(data) as view:
            for start in range(0, len(view), RECORD_BYTES):
                self._ssl.write(view[start : start + RECORD_BYTES])
                records.append(self._outgoing.read())
        return b"".join(records)

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
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

    def _flush(self, data: bytes | None = None) -> bool:
        """Hand ``data``, or what the outgoing BIO has, to the socket, behind what it has not taken yet.

        Returns whether the socket took all.

        Raises:
            trio.BrokenResourceError: the connection is broken.
        """
        if data is None:
            data = self._outgoing.read()
        if self.unsent:
            if len(self.unsent) + len(data) > UNSENT_MAX:
                self.send_error = trio.BrokenResourceError("the peer makes TLS answer, and does not read")
                raise self.send_error
            self.unsent = bytes(self.unsent) + data
            return False
        return not data or self._hand_over(data)

    def _reply(self) -> None:
        """Send what the SSL object has written by itself: a part of the handshake, the answer to a KeyUpdate, an alert.

        Where that fails, the next send raises. A read may still give what the peer sent before it stopped reading.
        """
        with suppress(trio.BrokenResourceError):
            self._flush()

    # The end.

    def send_eof(self) -> None:
        """Send ``close_notify`` if the socket takes it at once; receiving goes on. Never raises."""
        if self._closed or not self._close_notify_due or self.unsent or self.send_error is not None:
            return
        self._close_notify_due = False
        # unwrap() writes our close_notify, and then looks for the peer's. Data that it finds in its place would break
        # the SSL object. So it finds nothing.
        if count := self._ssl.pending():
            self._decrypted += self._ssl.read(count)
        records = self._incoming.read()
        with suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._incoming.write(records)
        self._reply()

    def reset_on_close(self) -> None:
        """As of a plain stream, and the close sends no ``close_notify``."""
        self._close_notify_due = False
        super().reset_on_close()

    def close(self) -> None:
        """Close, with a ``close_notify`` if the socket takes it at once."""
        self.send_eof()
        self.close_now()

    def close_now(self) -> None:
        """Close at once without ``close_notify``, whatever is under way. May be called twice."""
        if not self._closed and self._verified and self._keep_session is not None:
            self._keep_session(self._ssl.session)
        self._needs_bytes = True  # A read asks the socket, which is closed, and not the SSL object.
        super().close_now()
