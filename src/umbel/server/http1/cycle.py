"""An HTTP/1.1 request and its response: ``InboundRequest`` on the stream of a connection.

Theory
------
A response goes through the states *nothing* → *head* (``start`` has noted it) → *body* → *done*. ``respond`` goes from
nothing to done. The head goes out with the first part of the content, in one write. Whatever raises before that leaves
the response in a state in which the connection can still give another one (``can_respond``).

The content ends by its length where that is known, else in chunks, else (HTTP/1.0) with the connection. ``_left`` holds
the application to the length that it has given, before anything goes out that breaks it.

The body of the request is read from the connection's stream and only on demand; ``body`` is None once its last byte
has been handed on. What is behind it stays in the connection's buffer. A client that ends its sending is judged by
``departed``: before the application waits (``on_gone``) it has closed its half; while the body is being read, the
reading finds out whether the body was whole; after that the client has left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ...core.inbound import DISCARD_MAX, AnsweredByServerError, ByteStream, ClientGoneError, Field
from ...net.epoll import BROKEN
from ..limits.client_clocks import BodyClock
from ..limits.fairness import UnsentContent
from ..limits.upload import SMALL_BODY, Upload
from ..own_context import DONE, run_in_own_context
from ..response.access_record import RecordedRequest
from ..response.error_response import ErrorResponse, ServerResponse, new_request_id
from ..response.response_head import (
    CONTINUE,
    NO_CONTENT,
    STATUS_LINES,
    ApplicationError,
    Fields,
    interim_head,
    read_fields,
    switching_head,
)
from .request_body import Body, BodyError

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..peer import Peer
    from ..state import ServerState
    from .request_head import Head

_JOINED_MAX = 256 * 1024
"""Up to this a head and its content go out in one piece, at the price of a copy."""

# How far a response is. Plain numbers, because they are compared several times per request.
_NOTHING, _HEAD, _BODY, _DONE = range(4)


class RequestTransport(Protocol):
    """What a request needs of its connection: the bytes in both directions, and how the connection goes on."""

    server: ServerState
    stream: PlainStream
    peer: Peer
    scheme: str
    buffer: bytes
    """Bytes that were read and not used."""
    half_closed: bool
    """Whether the client has ended its sending and still waits for responses."""
    lingers: bool
    """Whether the client may be sending while the server closes the connection."""

    def take_buffer(self) -> bytes:
        """Take ``buffer``, and leave it empty."""
        ...

    def receive_now(self) -> bytes | None:
        """Receive without a wait: b"" at the end of the stream, None where nothing has come."""
        ...

    async def receive(self) -> bytes:
        """Wait for the next bytes; b"" at the end of the stream."""
        ...

    def send_now(self, data: bytes) -> bool:
        """Send what the socket takes, and keep the rest for ``send_rest``; whether nothing is left."""
        ...

    async def send_rest(self) -> None:
        """Wait until the socket has taken all that was kept."""
        ...

    async def refuse(self, error_response: ErrorResponse, request_id: str, method: str) -> int:
        """Send an error response; the bytes of its body."""
        ...

    def keeps_alive(self) -> bool:
        """Whether the server lets the connection carry another request."""
        ...

    def cancel_apart(self, reason: str) -> None:
        """Cancel the foreign code that serves the request, and with it the connection."""
        ...


class RequestResponseCycle(RecordedRequest, UnsentContent):
    """An HTTP/1.1 request and its response (``InboundRequest``)."""

    __slots__ = (
        "_at",
        "_bodiless",
        "_body_clock",
        "_body_size",
        "_chunked",
        "_connection",
        "_fields",
        "_left",
        "_on_gone",
        "_parsed",
        "_reading",
        "_unsent",
        "_unsent_until",
        "_wants_trailers",
        "body",
        "bytes_sent",
        "crash_recorded",
        "cut_off",
        "discard_max",
        "ended_at",
        "fields",
        "filed",
        "gone",
        "keep_alive",
        "local",
        "method",
        "peer",
        "refused_unseen",
        "response_complete",
        "scheme",
        "server",
        "server_response",
        "started",
        "status",
        "taken",
        "takes_trailers",
        "target",
        "upload",
        "version",
        "waits",
        "websocket",
    )
    _fields: Fields
    """Of a response that has begun."""
    _body_clock: BodyClock
    """Of a request with a body."""

    def __init__(self, connection: RequestTransport, head: Head, started: float) -> None:
        self._connection = connection
        self.server = connection.server
        self.scheme = connection.scheme
        self.peer = connection.peer.client
        self.local = connection.peer.server
        self.started = started
        self.method = head.method
        self.target = head.target
        self._parsed = parsed = head.parsed
        self.fields = parsed.fields
        self.version = parsed.version
        self.takes_trailers = parsed.takes_trailers
        """Whether the client says that it reads trailer fields."""
        self.websocket = parsed.websocket and head.method == "GET"
        """Whether it is the handshake of a WebSocket."""
        self.keep_alive = parsed.keep_alive and not parsed.websocket
        self.server_response = self.filed = None
        self.ended_at = 0.0
        self.upload: Upload | None = None
        """What the request counts as, where its body was waited for; else it is in flight."""
        self.gone = self.crash_recorded = self.refused_unseen = False
        self.response_complete = False
        """Whether the whole response has been handed to the socket."""
        self.taken = False
        """Whether the application has the bytes of the connection (``take``)."""
        self.cut_off = False
        """Whether the response was ended in its middle on purpose."""
        self.waits = False
        """Whether the application has begun to wait for something."""
        self._reading = False
        """Whether the application waits for the body."""
        self._on_gone: Callable[[], object] | None = None
        self._at = _NOTHING
        self.status = self.bytes_sent = self._unsent = 0
        self._wants_trailers = self._chunked = False
        self._bodiless = False
        """Whether the content is not sent: HEAD, 204, 304."""
        self._left: int | None = None
        """Bytes that Content-Length still promises."""
        self.discard_max = DISCARD_MAX
        self.body: Body | None = None
        """Until its last byte has been handed on."""
        if parsed.length:
            limits = connection.server.limits
            self.body = Body(parsed.length, limits)
            self._body_clock = BodyClock(limits)
            self._body_size = parsed.length if parsed.length > 0 else limits.max_body
            """Bytes that the body has, or may have at most where nobody knows."""

    # What is known of the request.

    @property
    def client_certificate(self) -> bytes | None:
        """The client's certificate (DER), verified."""
        return self._connection.peer.client_certificate

    @property
    def content_length(self) -> int | None:
        """Bytes of the body; None if they are not known."""
        return None if self._parsed.length < 0 else self._parsed.length

    @property
    def body_complete(self) -> bool:
        """Whether nothing of the request is left in the connection."""
        return self.body is None

    @property
    def begun(self) -> bool:
        """Whether the application has given the head of its response."""
        return self._at is not _NOTHING

    @property
    def can_respond(self) -> bool:
        """Whether no byte of a response has gone out."""
        return self._at <= _HEAD

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end shows the client where the content ends."""
        return not self.can_respond and self._left is None and not self._chunked and not self._bodiless

    # The client's leaving.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """As ``InboundRequest`` says."""
        self._on_gone = callback
        if callback is None:
            return
        if not self.waits:
            self.waits = True
            if self.body is None and (end := self._connection.stream.peer_end()):
                self.departed(broken=bool(end & BROKEN), late=False)
        if self.gone:
            self._tell_gone()

    def departed(self, *, broken: bool, late: bool = True) -> None:
        """The client's end of the stream has come, perhaps behind bytes that nobody has read."""
        if broken:
            self.client_left()
        elif self.taken:
            pass  # Whoever has the bytes finds their end behind them.
        elif self.body is not None and self._reading:
            pass  # The reading finds out whether the body was whole.
        elif late and self.waits and not self._connection.half_closed:
            self.client_left()
        else:
            self._connection.half_closed = True

    def client_left(self) -> None:
        """The client has gone, or is treated so: the application is notified, once."""
        if self.gone or self.response_complete:
            return
        self.gone = True
        self._tell_gone()

    def _tell_gone(self) -> None:
        callback, self._on_gone = self._on_gone, None
        if callback is not None:
            callback()

    # The request's body.

    def take_at_most(self, size: int) -> None:
        """As ``InboundRequest`` says."""
        if self._parsed.length < 0:
            self._body_size = min(self._body_size, size)

    async def receive(self) -> bytes:
        """As ``InboundRequest`` says."""
        body, content = self.body, b""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if body is None:
            return b""
        self._reading = True
        try:
            while not content and not body.ended:
                data = self._receive_available(body)
                if data is None:
                    data = await self._receive_as_upload(body)
                if not data:
                    self.client_left()
                    raise ClientGoneError("the client left before its body was complete")
                content, self._connection.buffer = body.feed(data)
            if body.ended and self.upload is not None and not self.begun:
                _raise_body_error(self.upload.complete())
        except BodyError as error:
            await self._refuse(error.error_response)
        finally:
            self._reading = False
        if body.ended:
            self.body = None
            # A client that ended its sending right behind its body has closed its half.
            self._connection.half_closed = self._connection.half_closed or bool(self._connection.stream.peer_end())
        return content

    def _receive_available(self, body: Body) -> bytes | None:
        """The connection's next bytes, where no wait is needed; empty at its end, None if a wait is needed."""
        connection = self._connection
        if connection.buffer:
            return connection.take_buffer()
        if self.upload is None and body.left is not None and body.left <= SMALL_BODY:
            return connection.receive_now()
        return None

    async def _receive_as_upload(self, body: Body) -> bytes:
        """The connection's next bytes, for which the request becomes an upload; empty at the connection's end.

        Raises:
            BodyError: 503, there are too many uploads; 408, the bytes come too slowly.
        """
        connection = self._connection
        if self.upload is None:
            self.upload = Upload(connection.server)
        small = body.left is not None and body.left <= SMALL_BODY
        _raise_body_error(await self.upload.begin(partial(self._all_has_come, body.left or 0) if small else None))
        if self._parsed.expects_continue and not body.received and self.can_respond and not connection.buffer:
            await self._write(CONTINUE)
        return connection.take_buffer() or await self._receive_timed()

    async def _all_has_come(self, left: int) -> None:
        """Wait until the connection's buffer holds the ``left`` bytes of the body, or there is no more."""
        connection = self._connection
        while len(connection.buffer) < left and (data := await connection.receive()):
            connection.buffer += data

    async def _receive_timed(self) -> bytes:
        """Wait for the connection's next bytes; empty at its end.

        Raises:
            BodyError: 408, they come too slowly. Only the time that we wait for them counts.
        """
        clock, began = self._body_clock, trio.current_time()
        with trio.CancelScope(deadline=began + clock.left(self._body_size)) as scope:
            data = await self._connection.receive()
        if scope.cancelled_caught:
            raise BodyError(ErrorResponse(408, "The body did not arrive in time."))
        clock.waited(trio.current_time() - began)
        return data

    async def _refuse(self, error_response: ErrorResponse) -> None:
        """Answer in the application's place, if nothing has been answered.

        Raises:
            AnsweredByServerError, ClientGoneError: one of them in any case.
        """
        gone = ClientGoneError("the body cannot be read on")
        if self.can_respond:
            request_id = new_request_id()
            self.keep_alive = False
            try:
                sent = await self._connection.refuse(error_response, request_id, self.method)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.client_left()
                raise gone from None
            self.server_response = ServerResponse(error_response, request_id, sent, notified=True)
            gone = AnsweredByServerError(error_response.status, error_response.kind, error_response.detail, request_id)
        self._connection.lingers = True
        self.client_left()
        raise gone from None

    async def discard_body(self) -> bool:
        """Read what nobody read of the body; whether the connection can serve on."""
        body = self.body
        if body is None:
            return True
        if body.left is None or body.left > self.discard_max:
            return False
        # It has a time of its own: the application may have waited for the beginning.
        self._body_clock, self._body_size = BodyClock(self._connection.server.limits), body.left
        try:
            while not body.ended:
                data = self._connection.take_buffer() or await self._receive_timed()
                if not data:
                    return False
                _, self._connection.buffer = body.feed(data)
        except BodyError:
            return False
        self.body = None
        return True

    # The response.

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """As ``InboundRequest`` says."""
        self._begin(status, fields)
        return self._give_whole(body)

    def _give_whole(self, body: bytes) -> bool:
        """Give the head that has been noted and all of the content; whether the socket has taken it."""
        size, rest = len(body), b""
        data = self._head_for(size, False)
        if not self._bodiless:
            if size <= _JOINED_MAX:
                data += body
            else:
                rest = body
        self._at = _DONE
        try:
            sent = self._connection.send_now(data)
            if rest:
                sent = self._connection.send_now(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._lost() from error
        self.response_complete = True
        return sent

    async def drained(self) -> None:
        """As ``InboundRequest`` says."""
        try:
            await self._connection.send_rest()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise self._lost() from error
        except BaseException:
            self.response_complete = False  # Cut: not all of it was taken.
            raise

    def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> Coroutine[Any, Any, None]:
        """As ``InboundRequest`` says."""
        self._begin(status, fields)
        self._wants_trailers = trailers
        return DONE

    async def send(self, data: bytes) -> None:
        """As ``InboundRequest`` says."""
        await self._put(data, more=True)
        # An application that only ever sends must let others have their turn.
        await trio.lowlevel.checkpoint()

    def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> Coroutine[Any, Any, None]:
        """As ``InboundRequest`` says."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is _HEAD and not self._wants_trailers:
            return DONE if self._give_whole(data) else self.drained()
        return self._put(data, more=False, trailers=trailers)

    def _begin(self, status: int, fields: Sequence[Field]) -> None:
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING:
            raise ApplicationError("the request has been answered already")
        if status not in STATUS_LINES:
            raise ApplicationError(f"the application answered with the status {status!r}")
        self._fields = read_fields(fields)
        self.status = status
        self._at = _HEAD

    async def _put(self, body: bytes, *, more: bool, trailers: Sequence[Field] = ()) -> None:
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is _DONE or self._at is _NOTHING:
            raise ApplicationError("the application sent content before its head, or after its end")
        before = behind = b""
        if self._at is _HEAD:
            before = self._head_for(len(body), more)
            self._at = _BODY
        else:
            self._spend(len(body), more)
        if self._bodiless:
            data = before
            if more and not self.leave_unsent(len(body), self._connection.server.limits.write_timeout):
                self._connection.lingers = True
                self.client_left()
                raise ClientGoneError("the response has no content, and the client takes none")
        elif self._chunked:
            data = b"%b%x\r\n%b\r\n" % (before, len(body), body) if body else before
            if not more:
                data += b"0\r\n%b\r\n" % read_fields(trailers).lines
        elif before and len(body) > _JOINED_MAX:
            data, behind = before, body
        else:
            data = before + body if before else body
        if data:
            await self._write(data, behind)
        if not more:
            self._at = _DONE
            self.response_complete = True

    def _head_for(self, size: int, more: bool) -> bytes:
        """The head of the response, whose first part of content has ``size`` bytes."""
        fields, status = self._fields, self.status
        lines, framing, length = fields.lines, b"", fields.length
        self._bodiless = bodiless = self.method == "HEAD" or status in NO_CONTENT
        self._left = length
        if length is None:
            framing = self._framing(size, more)
        elif status == 204:
            lines = lines.replace(b"content-length: %d\r\n" % length, b"")
        if size == length and not (more or bodiless):  # What _spend does where all comes at once.
            self._left, self.bytes_sent = 0, size
        else:
            self._spend(size, more)
        body = self.body
        if self.keep_alive and (
            fields.close or not self._connection.keeps_alive() or (body is not None and self._has_large_rest(body))
        ):
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self.version == "1.0":
            framing += b"connection: keep-alive\r\n"
        own_lines = self.server.own_fields.lines(fields.dated)
        return b"".join((STATUS_LINES[status], own_lines, lines, framing, b"\r\n"))

    def _framing(self, size: int, more: bool) -> bytes:
        """The framing of a body whose length the application does not give."""
        if not more and not self._wants_trailers:
            if self.status in NO_CONTENT or (self._bodiless and not size):
                return b""
            self._left = size
            return b"content-length: %d\r\n" % size
        if self._bodiless:
            return b""
        if self.version == "1.1":
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.keep_alive = False
        return b""

    def _has_large_rest(self, body: Body) -> bool:
        """Whether what nobody has read of the body cannot be read behind the response."""
        # A client that waits for its 100 may send it or may not.
        waits = self._parsed.expects_continue and not body.received
        return waits or body.left is None or body.left > self.discard_max

    def _spend(self, size: int, more: bool) -> None:
        """Hold the application to its Content-Length, before anything goes out that breaks it."""
        if self._bodiless:
            return
        if (left := self._left) is not None:
            if size > left:
                raise ApplicationError("the application sent more than its Content-Length")
            self._left = left = left - size
            if left and not more:
                raise ApplicationError(f"the application sent {left} bytes less than its Content-Length")
        self.bytes_sent += size

    async def _write(self, data: bytes, behind: bytes = b"") -> None:
        """Hand bytes to the socket, and those ``behind`` them. Cancelled, they are still sent before any others.

        Raises:
            ClientGoneError: it takes no more, or not within its deadline.
        """
        try:
            sent = self._connection.send_now(data)
            if behind:
                sent = self._connection.send_now(behind)
            if not sent:
                await self._connection.send_rest()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise self._lost() from error

    def _lost(self) -> ClientGoneError:
        """The client takes nothing more."""
        self.response_complete = False  # Not all of it was taken.
        self.client_left()
        return ClientGoneError("the client has gone, or does not read")

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """As ``InboundRequest`` says."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING:
            raise ApplicationError("an interim response comes before the answer")
        head = interim_head(status, fields)
        if self.version == "1.1":
            await self._write(head)

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """As ``InboundRequest`` says."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING or self.body is not None:
            raise ApplicationError("a connection is taken before the request is answered, and behind its body")
        head = switching_head(status, fields)
        self.status, self._at, self.keep_alive, self.taken = status, _BODY, False, True
        await self._write(head)
        return TakenConnection(self, self._connection)

    def cut(self, reason: str) -> None:
        """As ``InboundRequest`` says."""
        self.cut_off = True
        self._connection.stream.reset_on_close()
        self.client_left()

    # Foreign code.

    def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> Coroutine[Any, Any, None]:
        """As ``InboundRequest`` says."""
        return run_in_own_context(work, begins_to_wait)

    def cancel_apart(self, reason: str) -> None:
        """As ``InboundRequest`` says."""
        self._connection.cancel_apart(reason)


class TakenConnection:
    """The bytes of a connection that an application has taken; ``ByteStream``."""

    __slots__ = ("_connection", "_cycle", "_lock")

    def __init__(self, cycle: RequestResponseCycle, connection: RequestTransport) -> None:
        self._cycle = cycle
        self._connection = connection
        self._lock = trio.Lock()
        """Held while bytes go out: they may come from several tasks."""

    async def receive_some(self) -> bytes:
        """As ``ByteStream`` says."""
        if self._connection.buffer:
            await trio.lowlevel.checkpoint()
            return self._connection.take_buffer()
        return await self._connection.receive()

    async def send_all(self, data: bytes) -> None:
        """As ``ByteStream`` says."""
        # Shielded: half a message would spoil those behind it. Each write has its deadline.
        with trio.CancelScope(shield=True):
            async with self._lock:
                if self._cycle.gone:
                    raise ClientGoneError("the client has gone")
                await self._cycle._write(data)

    async def send_eof(self) -> None:
        """As ``ByteStream`` says."""
        await trio.lowlevel.checkpoint()
        self._connection.stream.send_eof()


def _raise_body_error(error_response: ErrorResponse | None) -> None:
    """Go on unless there is an error response.

    Raises:
        BodyError: there is one.
    """
    if error_response is not None:
        raise BodyError(error_response)
