"""TLS byte stream over ``ssl.MemoryBIO`` on a watched socket, for clients and servers.

Theory
------
``TlsStream`` is a ``PlainStream`` with an SSL object between the socket and the user. The rules of ``stream.py`` hold
here too: one task receives, or a listener; one task sends; ``close_now`` is allowed at any time.

*Received bytes* pass through three places:

    socket  --_feed-->  incoming BIO (encrypted)  --SSL object (one decrypted record)-->  receive_now

The socket reader (``epoll.py``) reports only changes of the socket. So ``_readable`` has a wider meaning here: one of
the three places may have something. ``_needs_bytes`` is True once the BIO and the SSL object are known to have no data;
then ``receive_now`` begins with ``_feed``. Otherwise ``receive_now`` asks the SSL object first, and feeds it until it
gives data, or the socket has nothing. ``send_eof`` moves decrypted data to a fourth place, ``_decrypted``, which
``receive_now`` empties first. Invariant: if ``receive_now`` returns while the BIO or the SSL object still has something
that can be read now, ``_readable`` is True. Without it the task would wait for an event of the socket although
decrypted data is there.

*Bulk data* comes in large records. ``receive_now`` joins those that have come, up to ``RECEIVE_MAX``, so that a body
costs the code above hardly more per byte than on a plain stream. More would take longer than a piece of a plain stream:
a turn of the event loop may have a piece of each task. Small records are given one by one: the time for as many bytes
in records of one byte would block the event loop. An error behind joined records is kept in ``_behind`` and raised by
the next ``receive_now``, because OpenSSL need not report it again.

*Sent bytes.* Each operation of the SSL object, also a read, may write to the outgoing BIO: a part of the handshake, an
alert, the reply to a KeyUpdate. So the outgoing BIO is moved to the socket after each operation (``_flush``). Bytes
that the socket does not take are kept in ``unsent``, as on a plain stream.

*Memory.* A BIO never shrinks. So about one record at a time goes through each BIO (``FEED_BYTES``, ``RECORD_BYTES``),
and an idle connection needs no more memory after a large transfer than before.

*Records without data* (KeyUpdate, session tickets, refused renegotiations) cost CPU time, about 50 us for a KeyUpdate
of 27 bytes, and ``SSLObject.read`` handles all of them that it has in one call. ``FEED_BYTES`` bounds one such call.
A peer that sends more than ``DATALESS_MAX`` bytes in a row without data is treated as broken.

*The end of the stream* is the peer's ``close_notify``. If TCP ends without one, reading raises BrokenResourceError, so
that nobody on the path can truncate a body that the end of the connection delimits (RFC 9112 section 9.8). The SSL
object is not told of such an end, because it would then refuse to send: a peer that has closed its half of the TCP
connection can still get a response. After the ``close_notify`` of one side, the other side can still send.

*States.* ``handshake`` must succeed before any other use. Each direction then goes from open to ended:

    receiving   open --peer's close_notify--> ended (b"" at each read)       open --error--> broken
    sending     open --send_eof-------------> ended                          open --error--> broken (``send_error``)

``close`` sends ``close_notify`` if the socket takes it at once, and never waits; ``close_now`` sends nothing.

*Cancellation.* A cancel of ``receive_some`` loses nothing: it takes effect before bytes leave the socket. After a
cancel of ``handshake``, or of ``send_all`` in its middle, the stream can only be closed.

*Sessions.* Session tickets of TLS 1.3 come after the handshake, in front of the first data. So a client's session for a
later connection is read when the stream closes, and ``is_quiet`` does not count tickets. A server stores no session:
the tickets contain it, encrypted with a key of the context.

*Renegotiation* (TLS 1.2) is refused on a server: the peer could cause the work of a handshake again and again.
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
"""Size in bytes of the pieces that ``send_all`` encrypts and gives to the socket."""
RECORD_BYTES = 16 * 1024
"""Maximum bytes of data in one TLS record (RFC 8446 section 5.1)."""
FEED_BYTES = RECORD_BYTES + 512
"""Maximum bytes of one read from the socket: one record with its header and padding."""
LARGE_RECORD = 4 * 1024
"""Least bytes of data in a record to which ``receive_now`` joins the next one."""
RECORD_COST = 512
"""Fixed cost of one record in ``TURN_BYTES_MAX``, in bytes: a record may carry a single byte of data."""
UNSENT_MAX = 256 * 1024
"""Maximum bytes in ``unsent``. Exceeded only by a peer that makes TLS reply again and again, and does not read."""
DATALESS_MAX = 24 * 1024
"""Maximum received bytes in a row without data. An incomplete record takes up to ``FEED_BYTES`` of them."""


class TlsStream(PlainStream):
    """Byte stream over TLS; see the module. ``handshake`` must succeed before any other use.

    The constructor makes a client's stream, ``serving`` makes a server's stream.
    """

    __slots__ = (
        "_behind",
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
        """Take over a connected socket.

        Args:
            sock: the socket; the stream closes it.
            reader: the socket reader that watches ``sock``.
            context: certificates and settings.
            server_name: the name for SNI and for the check of the peer's certificate; None on a server.
            session: a session to resume; None: a full handshake.
            keep_session: called with the session when the stream closes, if the handshake succeeded.
            server_side: whether this side is the server.

        Raises:
            ValueError: TLS cannot carry ``server_name``. The socket is left open.
            OSError: the system refuses another registration. The socket is left open.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name, session)
        self._keep_session = keep_session
        self._verified = False
        self._close_notify_due = False
        self._needs_bytes = False
        self._decrypted = b""
        self._behind: trio.BrokenResourceError | None = None
        self._dataless = 0
        self.alpn: str | None = None
        """The protocol that ALPN has selected; None: no protocol was negotiated."""
        self.client_certificate: bytes | None = None
        """On a server: the client's certificate (DER), which the handshake has verified; else None."""
        super().__init__(sock, reader)

    @classmethod
    def serving(cls, sock: socket.socket, reader: Reader, context: ssl.SSLContext) -> Self:
        """Make a server's stream over an accepted socket. Sets ``OP_NO_RENEGOTIATION`` in ``context``.

        Raises:
            OSError: the system refuses another registration. The socket is left open.
        """
        if not context.options & ssl.OP_NO_RENEGOTIATION:
            context.options |= ssl.OP_NO_RENEGOTIATION
        return cls(sock, reader, context, None, server_side=True)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The SSL object, for the protocol, cipher, certificate and session of the connection. Only to be read."""
        return self._ssl

    async def handshake(self) -> None:
        """Do the TLS handshake, without a timeout. After an error or a cancel the stream can only be closed.

        Raises:
            trio.BrokenResourceError: the handshake failed; the cause says why.
            trio.ClosedResourceError: the stream was closed during the handshake.
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
                self._reply()  # The alert that tells the peer why.
                raise trio.BrokenResourceError("the TLS handshake failed") from error
            break
        self._verified = self._close_notify_due = True
        self._dataless = 0
        self.alpn = self._ssl.selected_alpn_protocol()
        if self._ssl.server_side and self._ssl.context.verify_mode != ssl.CERT_NONE:
            self.client_certificate = self._ssl.getpeercert(binary_form=True)
        # The peer's first data may have come together with the end of its handshake.
        self._readable = self._readable or self._incoming.pending > 0
        if not self._flush(self._outgoing.read()):
            await self.drained()

    # Receiving.

    def receive_now(self, limit: int = RECEIVE_MAX) -> bytes | None:
        """Take received bytes without waiting, of one record or of several large ones; see ``PlainStream``."""
        if self._needs_bytes:
            if not self._feed():
                return None
        elif self._decrypted:
            data, self._decrypted = self._decrypted[:limit], self._decrypted[limit:]
            self._readable = True
            return data
        elif self._behind is not None:
            error, self._behind = self._behind, None
            raise error
        size = limit if limit < RECORD_BYTES else RECORD_BYTES
        while True:
            try:
                data = self._ssl.read(size)
            except ssl.SSLWantReadError:
                self._needs_bytes = True
            except ssl.SSLZeroReturnError:
                data = b""
                break
            except ssl.SSLError as error:
                self._reply()
                raise trio.BrokenResourceError("the TLS connection is broken") from error
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
            # A read processes one record at most. So if it gives less than it may, the SSL object has no more data.
            self._needs_bytes = not self._incoming.pending and (len(data) < size or not self._ssl.pending())
        else:
            self._needs_bytes = False  # The SSL object has the end, and reports it at each read.
        if not self._needs_bytes:
            self._readable = True  # The reader reports no event for data that has left the socket.
        if len(data) >= LARGE_RECORD and limit - len(data) >= RECORD_BYTES:
            return self._with_next_records(data, limit)
        return data

    def _with_next_records(self, data: bytes, limit: int) -> bytes:
        """``data`` of a large record with the data of the records behind it that have come; see "Bulk data".

        At most ``limit`` bytes, and at most ``RECEIVE_MAX``.
        """
        pieces, left = [data], min(limit, RECEIVE_MAX) - len(data)
        while left >= RECORD_BYTES and len(data) >= LARGE_RECORD:
            try:
                data = self.receive_now(RECORD_BYTES) or b""
            except trio.BrokenResourceError as error:
                error.__traceback__ = None  # Its frames hold this stream: a reference cycle.
                self._behind, self._needs_bytes, self._readable = error, False, True
                break
            pieces.append(data)  # Empty: nothing has come, or the end, which the next read finds again.
            left -= len(data)
        return b"".join(pieces)

    def _push(self) -> None:
        """Read records and give their data to the listener, ``TURN_BYTES_MAX`` at most."""
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
        """Move bytes from the socket to the incoming BIO. Return False if the socket has none now.

        Raises:
            trio.BrokenResourceError: the connection is broken or has ended without ``close_notify``, or the peer sends
                too many records without data.
            trio.ClosedResourceError: the stream is closed.
        """
        raw = PlainStream.receive_now(self, FEED_BYTES)
        if raw is None:
            return False
        if not raw:
            cause = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without close_notify")
            raise trio.BrokenResourceError("the peer has closed TCP without close_notify") from cause
        if self._dataless > DATALESS_MAX and self._verified:  # OpenSSL itself bounds the size of a handshake.
            raise trio.BrokenResourceError("the peer sends too many TLS records without data")
        self._dataless += len(raw)
        self._incoming.write(raw)
        self._needs_bytes = False
        return True

    def is_quiet(self) -> bool:
        """Whether the peer has sent no data, no alert and no end. Session tickets are processed and do not count."""
        if self._closed:
            return False
        # The loop ends: each round takes bytes out of the socket, and ``DATALESS_MAX`` bounds those without data.
        while self._readable or self._poll.poll(0):
            self._readable = True
            try:
                if self.receive_now() is not None:
                    return False
            except trio.BrokenResourceError:
                return False
        return True

    # Sending.

    def unread(self) -> int:
        """0: the kernel counts encrypted bytes."""
        return 0

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send what the socket takes at once, and keep the rest; see ``PlainStream``.

        ``data`` is encrypted as a whole: give at most ``RECORDS_BYTES``.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self.send_error is not None:
            raise self.send_error
        try:
            if len(data) > RECORD_BYTES:
                records = self._encrypted(data)
            else:
                if data:
                    self._ssl.write(data)
                records = self._outgoing.read()
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("the TLS connection is broken") from error
        if self.unsent or not records or self._soon is not None:
            return self._flush(records)
        return self._hand_over(records)

    def send_soon(self, data: bytes, on_rest: Callable[[], object]) -> bool:
        """Encrypt ``data`` now, and send the records at the end of the turn; see ``PlainStream``.

        Not for more than ``RECORD_BYTES``. All records that are made later are sent behind these, even an alert.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._soon is not None or self.send_error is not None or not 0 < len(data) <= RECORD_BYTES:
            return False
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("the TLS connection is broken") from error
        return PlainStream.send_soon(self, self._outgoing.read(), on_rest)

    def send_part(self, data: bytes | memoryview) -> int:
        """Encrypt and send ``data`` in pieces of ``RECORDS_BYTES``, until one stays unsent; see ``PlainStream``."""
        size = len(data)
        with memoryview(data) as view:
            for start in range(0, size, RECORDS_BYTES):
                if not self.send_now(view[start : start + RECORDS_BYTES]):
                    return min(start + RECORDS_BYTES, size)
        return size

    def _encrypted(self, data: bytes | memoryview) -> bytes:
        """The TLS records of ``data``, taken out of the outgoing BIO one by one, so that the BIO stays small."""
        records = []
        with memoryview(data) as view:
            for start in range(0, len(view), RECORD_BYTES):
                self._ssl.write(view[start : start + RECORD_BYTES])
                records.append(self._outgoing.read())
        return b"".join(records)

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        """``send_now``, then ``listen``; see ``PlainStream``."""
        try:  # noqa: SIM105 - ``suppress`` costs three calls of functions
            self.send_now(data)
        except trio.BrokenResourceError:
            pass  # Bytes that the peer has sent can still be received.
        self.listen(listener)

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``; see ``PlainStream``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as view:
            for start in range(0, len(view), RECORDS_BYTES):
                if not self.send_now(view[start : start + RECORDS_BYTES]):
                    await self.drained()

    def _flush(self, records: bytes) -> bool:
        """Give ``records``, which come from the outgoing BIO, to the socket, after the bytes in ``unsent``.

        Return whether the socket took everything. The rest is kept in ``unsent``.

        Raises:
            trio.BrokenResourceError: the connection is broken, or ``unsent`` exceeds ``UNSENT_MAX``.
        """
        if self._soon is not None:
            self._send_soon()
        if self.unsent:
            if len(self.unsent) + len(records) > UNSENT_MAX:
                self.send_error = trio.BrokenResourceError("the peer makes TLS reply, and does not read the replies")
                raise self.send_error
            self.unsent = bytes(self.unsent) + records
            return False
        return not records or self._hand_over(records)

    def _reply(self) -> None:
        """Send what the SSL object has written by itself: a part of the handshake, a reply to a KeyUpdate, an alert.

        If that fails, the next send raises. Bytes that the peer has sent before can still be read.
        """
        with suppress(trio.BrokenResourceError):
            self._flush(self._outgoing.read())

    # The end.

    def send_eof(self) -> None:
        """Send ``close_notify`` unless bytes are still unsent; receiving goes on. Never raises."""
        self._send_soon()
        if self._closed or not self._close_notify_due or self.unsent or self.send_error is not None:
            return
        self._close_notify_due = False
        # unwrap() writes our close_notify, and then reads the peer's. If unwrap() finds data instead, the SSL object
        # is broken. So the SSL object and the BIO are emptied before unwrap(), and the BIO is filled again after it.
        if count := self._ssl.pending():
            self._decrypted += self._ssl.read(count)
        records = self._incoming.read()
        with suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._incoming.write(records)
        self._reply()

    def reset_on_close(self) -> None:
        """Make the later close send a RST; see ``PlainStream``. No ``close_notify`` is sent."""
        self._close_notify_due = False
        super().reset_on_close()

    def close(self) -> None:
        """Close the stream, with a ``close_notify`` if the socket takes it at once. Does not wait."""
        self.send_eof()
        self.close_now()

    def close_now(self) -> None:
        """Close at once without ``close_notify``. See ``PlainStream.close_now``."""
        if not self._closed and self._verified and self._keep_session is not None:
            self._keep_session(self._ssl.session)
        # A read begins with the socket and so raises ClosedResourceError, even if the SSL object still has data.
        self._needs_bytes = True
        super().close_now()
