"""HTTP/1.1 request with its response: ``InboundRequest`` on the stream of a connection.

Theory
------
Three things change independently: the response, the request's body, and the client's presence.

**The response** (``_at``) moves forward only:

- ``_NOTHING``: the application has given nothing.
- ``_HEAD``: the application has given a head, which goes out with the first part of the content, in one write. An
  exception up to here leaves room for an error response (``can_respond``).
- ``_BODY``: the head was handed to the connection. From here on an error can only end the connection.
- ``_DONE``: the end of the content was handed to the connection.

``respond`` moves from ``_NOTHING`` to ``_DONE``, ``take`` to ``_BODY``. ``response_complete`` is set with ``_DONE`` if
the response is given whole, else when the socket has taken the last part. It is taken back when the bytes cannot be
delivered or ``drained`` is cancelled. An interim response moves nothing.

The content is delimited by Content-Length if the length is known, else by chunks, else (HTTP/1.0) by the end of the
connection (RFC 9112 section 6). ``_spend`` compares the content with the application's Content-Length before a byte
goes out, so a wrong length never desynchronises the connection.

**The request's body** is read only when ``receive`` asks for it. ``body`` is None when the last byte was handed on. The
bytes behind the body go back to the connection's buffer: they are the next request.

**The client.** ``gone`` is set once: when the client left, when it does not take the response, when the request's body
cannot be read on (the server then responds in the application's place, if it still can), when the application gives too
much content for a response without content, or when it cuts the response. From then on ``receive`` and all sending
raise ``ClientGoneError``, and the callback of ``on_gone`` has been called. ``departed`` decides what the end of the
client's sending means:

- the connection is broken: the client left;
- the bytes were taken (``take``): the taker reads the end in its order;
- a task reads the body: that read finds whether the body was complete;
- the body may have any size and is all in the socket: the next read finds that it was complete;
- the application began to wait (``waits``) before the end came: the client left;
- else the client has half-closed and still gets its response.

**Cancellation.** A cancel in ``receive`` loses no byte: the bytes stay in the socket or in ``connection.buffer``. A
cancel in a send leaves its bytes with the connection, in order, and the response can go on. A cancel in ``finish`` or
``drained`` leaves the response in ``_DONE`` without ``response_complete``, so the connection serves no other request.

**Who calls what.** The application calls the methods of ``InboundRequest``: ``receive`` from one task at a time, and
one sending method at a time (``inform_soon`` at any time). The connection calls ``departed``, ``discard_body`` and
``client_left``, the reserve for probes ``displace``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ...core.inbound import DISCARD_MAX, AnsweredByServerError, ByteStream, ClientGoneError, Field
from ...net.epoll import BROKEN
from ..limits.client_clocks import PIECE, BodyClock
from ..limits.fairness import UnsentContent
from ..limits.request_place import SMALL_BODY, CountedRequest, RequestPlace
from ..own_context import DONE, run_in_own_context
from ..response.access_record import RecordedRequest
from ..response.error_response import ErrorResponse, ServerResponse, new_request_id
from ..response.response_head import (
    CONTINUE,
    NO_CONTENT,
    NO_STREAM_FOR_TAKE,
    STATUS_LINES,
    ApplicationError,
    Fields,
    interim_head,
    read_fields,
    switching_head,
)
from .request_body import Body, BodyError, too_large
from .taken_connection import TakenConnection

if TYPE_CHECKING:
    from .request_head import Head
    from .request_transport import RequestTransport

_JOINED_MAX = 256 * 1024
"""Most bytes of content that are joined with the head for one write. Joining copies the content."""

# The states of a response. Plain numbers, because they are compared several times per request.
_NOTHING, _HEAD, _BODY, _DONE = range(4)


class RequestResponseCycle(CountedRequest, RecordedRequest, UnsentContent):
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
        "_must_continue",
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
        "place",
        "receive_max",
        "refused_unseen",
        "response_complete",
        "scheme",
        "server",
        "server_response",
        "started",
        "status",
        "switched_at",
        "taken",
        "takes_trailers",
        "target",
        "version",
        "waits",
        "websocket",
    )
    _fields: Fields
    """Fields of the response; set from ``_HEAD`` on."""
    _body_clock: BodyClock
    """Set if the request has a body."""

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
        """Whether the client accepts trailer fields (``TE: trailers``)."""
        self.websocket = parsed.websocket and head.method == "GET"
        """Whether the request is the opening handshake of a WebSocket."""
        self.keep_alive = parsed.keep_alive and not parsed.websocket
        """Whether the connection stays open after the response, as far as the messages decide."""
        self.server_response = self.filed = None
        self.ended_at = 0.0
        self.place: RequestPlace | None = None
        self.switched_at: float | None = None
        self.gone = self.crash_recorded = self.refused_unseen = False
        self.response_complete = False
        """Whether the whole response was handed to the connection and was not lost since."""
        self.taken = False
        """Whether the application has the bytes of the connection (``take``)."""
        self.cut_off = False
        """Whether the application has aborted its response (``cut``)."""
        self.waits = False
        """Whether the application has begun to wait for something."""
        self._reading = False
        """Whether ``receive`` is running."""
        self._on_gone: Callable[[], object] | None = None
        self._at = _NOTHING
        self.status = self.bytes_sent = self._unsent = 0
        self._wants_trailers = self._chunked = False
        self._bodiless = False
        """Whether the response has no content on the wire: to HEAD, or with 204 or 304."""
        self._left: int | None = None
        """Bytes of content that are still to come according to Content-Length; None without one."""
        self.discard_max = DISCARD_MAX
        self.body: Body | None = None
        """The request's body; None if there is none, or its last byte was handed on."""
        if parsed.length:
            limits = connection.server.limits
            self.body = Body(parsed.length, limits)
            self._body_clock = BodyClock(limits)
            self.receive_max = PIECE
            self._body_size = parsed.length if parsed.length > 0 else limits.max_body
            """Bytes of the body; if its length is unknown, the most that it may have."""
            self._must_continue = parsed.expects_continue
            """Whether the client still waits for 100 (Continue)."""

    # The request.

    @property
    def client_certificate(self) -> bytes | None:
        """The client's verified certificate (DER)."""
        return self._connection.peer.client_certificate

    @property
    def content_length(self) -> int | None:
        """Bytes of the body; None if the length is unknown."""
        return None if self._parsed.length < 0 else self._parsed.length

    @property
    def body_complete(self) -> bool:
        """Whether the next byte of the connection belongs to the next request."""
        return self.body is None

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits for 100 (Continue); see ``InboundRequest``."""
        body = self.body
        return body is not None and self._must_continue and not body.received and self._at is _NOTHING

    @property
    def begun(self) -> bool:
        """Whether the application has given the head of its response."""
        return self._at is not _NOTHING

    @property
    def response_started(self) -> bool:
        """Whether the response has begun, so that only the client keeps the request open."""
        return self._at is not _NOTHING

    @property
    def can_respond(self) -> bool:
        """Whether an error response is possible: no byte of a final response was handed to the connection."""
        return self._at <= _HEAD

    @property
    def ends_with_connection(self) -> bool:
        """Whether the content of the response is delimited by the end of the connection alone."""
        return not self.can_respond and self._left is None and not self._chunked and not self._bodiless

    # The client.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the client leaves; see ``InboundRequest``."""
        self._on_gone = callback
        if callback is None:
            return
        if not self.waits:
            self.waits = True
            # The reader reports an end only in its turn. One that came before this wait must count as a half-close.
            if self.body is None and (end := self._connection.stream.peer_end()):
                self.departed(broken=bool(end & BROKEN), late=False)
        if self.gone:
            self._tell_gone()

    def departed(self, *, broken: bool, late: bool = True) -> None:
        """Decide what the end of the client's sending means; see the module.

        ``broken``: both directions have ended. ``late``: the end came after the application began to wait.
        """
        if broken:
            self.client_left()
        elif self.taken:
            pass  # TakenConnection.receive_some reports the end behind all bytes.
        elif self.body is not None and (self._reading or self._rest_has_come(self.body)):
            pass  # receive finds out whether the body was complete.
        elif late and self.waits and not self._connection.half_closed:
            self.client_left()
        else:
            self._connection.half_closed = True

    def _rest_has_come(self, body: Body) -> bool:
        """Whether the unread rest of a body that may have any size is in the socket, so that a read will find it all.

        Such a body is read as fast as it is passed on. The client has often ended its sending long before that.
        """
        left = body.left
        if left is None or not body.takes_any_size:
            return False
        return len(self._connection.buffer) + self._connection.stream.unread() >= left

    def client_left(self) -> None:
        """Set ``gone``, and notify the application once. Does nothing after a complete response."""
        if self.gone or self.response_complete:
            return
        self.gone = True
        self._tell_gone()

    def _tell_gone(self) -> None:
        callback, self._on_gone = self._on_gone, None
        if callback is not None:
            callback()

    # The body of the request.

    def take_at_most(self, size: int) -> None:
        """Bound the time for a body of unknown length to what ``size`` bytes need; see ``InboundRequest``."""
        if self._parsed.length < 0:
            self._body_size = min(self._body_size, size)

    def take_any_size(self) -> None:
        """Lift ``max_body`` and the bound on the whole time of the body; see ``InboundRequest``."""
        if self.body is not None:
            self.body.takes_any_size = True
            self._body_size = PIECE

    async def receive(self) -> bytes:
        """Receive the next part of the body, ``b""`` at its end; see ``InboundRequest``."""
        body, content = self.body, b""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if body is None:
            return b""
        self._reading = True
        try:
            if body.is_too_large:  # Of a head that the application lets pass (InboundApplication.takes_any_size).
                raise BodyError(too_large(self.server.limits))
            while not content and not body.ended:
                data = self._receive_available(body)
                if data is None:
                    data = await self._receive_as_upload(body)
                if not data:
                    self.client_left()
                    raise ClientGoneError("the client left before its body was complete")
                content, self._connection.buffer = body.feed(data)
            if body.takes_any_size:
                self._body_clock.took(len(content))
            if body.ended and self.place is not None and not self.begun:
                refused = self.place.complete()
                # The upstream may have acted on a body that was passed on: it is too late for a refusal.
                if refused is not None and not body.takes_any_size:
                    raise BodyError(refused)
        except BodyError as error:
            await self._refuse(error.error_response)
        finally:
            self._reading = False
        if body.ended:
            self.body = None
            # departed ignored an end that came during the read: behind a complete body it is a half-close.
            self._connection.half_closed = self._connection.half_closed or bool(self._connection.stream.peer_end())
        return content

    def _receive_available(self, body: Body) -> bytes | None:
        """The connection's next bytes if they are here; b"" at the end of the stream, None if a wait is needed."""
        connection = self._connection
        if connection.buffer:
            return connection.take_buffer()
        # A small body is nearly always in the socket already. It then needs no upload slot.
        if self.place is None and body.left is not None and body.left <= SMALL_BODY:
            return connection.receive_now()
        return None

    async def _receive_as_upload(self, body: Body) -> bytes:
        """Wait for the connection's next bytes as an upload; b"" at the end of the stream.

        Raises:
            BodyError: 503, no upload slot is free; 408, the bytes come too slowly.
        """
        connection, place = self._connection, self.own_place()
        small = body.left is not None and body.left <= SMALL_BODY
        refused = await place.begin_upload(partial(self._all_has_come, body.left or 0) if small else None)
        if refused is not None:
            raise BodyError(refused)
        # Only with a slot: a client must not be asked for a body that would be refused (RFC 9110 section 10.1.1).
        if self._must_continue and not body.received and self.can_respond and not connection.buffer:
            self._must_continue = False
            await self._write(CONTINUE)
        return connection.take_buffer() or await self._receive_timed()

    async def _all_has_come(self, left: int) -> None:
        """Wait until the connection's buffer holds the ``left`` bytes of the body, or the stream has ended."""
        connection = self._connection
        while len(connection.buffer) < left and (data := await connection.receive()):
            connection.buffer += data

    async def _receive_timed(self) -> bytes:
        """Wait for the connection's next bytes; b"" at the end of the stream.

        Raises:
            BodyError: 408, the waits for this body are longer in sum than its ``BodyClock`` allows. (Of a stream they
                have no bound.)
        """
        if (ready := await self._connection.receive_ready(self.receive_max)) is not None:
            return ready  # Without a scope, which costs as much as the read.
        clock, began = self._body_clock, trio.current_time()
        seconds = math.inf if self.place is not None and self.place.is_stream else clock.left(self._body_size)
        with trio.CancelScope(deadline=began + seconds) as scope:
            data = await self._connection.receive(self.receive_max)
        if scope.cancelled_caught:
            raise BodyError(ErrorResponse(408, "The body did not arrive in time."))
        clock.waited(trio.current_time() - began)
        return data

    async def _refuse(self, error_response: ErrorResponse) -> None:
        """Send an error response because of the body, unless a response has begun.

        Raises:
            AnsweredByServerError: the error response was sent. Else ClientGoneError.
        """
        gone = ClientGoneError("the body cannot be read on")
        if self.can_respond:
            request_id = new_request_id()
            self.keep_alive = False
            try:
                sent = await self._connection.refuse(error_response, request_id, self)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.client_left()
                raise gone from None
            self.server_response = ServerResponse(error_response, request_id, sent, notified=True)
            gone = AnsweredByServerError(error_response.status, error_response.kind, error_response.detail, request_id)
        # The rest of the body is still coming, and nobody reads it.
        self._connection.lingers = True
        self.client_left()
        raise gone from None

    async def discard_body(self) -> bool:
        """Read the unread rest of the body, up to ``discard_max`` bytes. Return whether the next request can follow."""
        body = self.body
        if body is None:
            return True
        if body.left is None or body.left > self.discard_max:
            return False
        # The rest gets a clock of its own: the application may have used up the time of the body.
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
        """Give the whole response without waiting. Return False if ``drained`` must follow; see ``InboundRequest``."""
        self._begin(status, fields)
        return self._give_whole(body)

    def _give_whole(self, body: bytes) -> bool:
        """Send the noted head and the whole content. Return whether the socket took all."""
        data, rest = self._head_for(len(body), False), b""
        if not self._bodiless:
            if len(body) <= _JOINED_MAX:
                data += body
            else:
                rest = body
        self._at = _DONE  # Before the send: after an exception the application must not respond again.
        try:
            last = self.keep_alive and self.body is None and not rest
            sent = self._connection.send_last(data) if last else self._connection.send_now(data)
            if rest:
                sent = self._connection.send_now(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._lost() from error
        self.response_complete = True
        return sent

    async def drained(self) -> None:
        """Wait until the client's socket has taken the whole response; see ``InboundRequest``."""
        try:
            await self._connection.send_rest()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise self._lost() from error
        except BaseException:
            # Cancelled: bytes still wait. With response_complete set, the connection would go on to the next request.
            self.response_complete = False
            raise

    def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> Coroutine[Any, Any, None]:
        """Begin a response in parts, without sending anything yet; see ``InboundRequest``."""
        self._begin(status, fields)
        self._wants_trailers = trailers
        return DONE

    async def send(self, data: bytes) -> bool:
        """Send a part of the content, and wait until the client's socket has taken it; see ``InboundRequest``."""
        at_once = await self._put(data, more=True)
        # _put does not wait while the socket takes all. Without this, an endless response would block the event loop.
        await self._connection.stream.pass_turn()
        return at_once

    def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> Coroutine[Any, Any, object]:
        """End the response that ``start`` began; see ``InboundRequest``."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is _HEAD and not self._wants_trailers:
            return DONE if self._give_whole(data) else self.drained()
        return self._put(data, more=False, trailers=trailers)

    def _begin(self, status: int, fields: Sequence[Field]) -> None:
        """Check and note the head of the response. Sends nothing; raises as ``respond``."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING:
            raise ApplicationError("the application has already started a response to this request")
        if status not in STATUS_LINES:
            raise ApplicationError(f"the application gave the status {status!r}; a final one is 200 to 599")
        self._fields = read_fields(fields)
        self.status = status
        self._at = _HEAD

    async def _put(self, body: bytes, *, more: bool, trailers: Sequence[Field] = ()) -> bool:
        """Send a part of the content, the last one unless ``more``, and a head that waits. Return whether at once."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is _DONE or self._at is _NOTHING:
            raise ApplicationError("the application sent content before the head or after the end of its response")
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
                raise ClientGoneError("the application gives too much content for a response without content")
        elif self._chunked:
            data = b"%b%x\r\n%b\r\n" % (before, len(body), body) if body else before
            if not more:
                data += b"0\r\n%b\r\n" % read_fields(trailers).lines
        elif before and len(body) > _JOINED_MAX:
            data, behind = before, body
        else:
            data = before + body if before else body
        if not more:
            self._at = _DONE  # Before the wait: a cancelled write is still sent, and no second end may follow it.
        at_once = not data or await self._write(data, behind)
        if not more:
            self.response_complete = True  # Only after the wait: a cancelled write leaves the response incomplete.
        return at_once

    def _head_for(self, size: int, more: bool) -> bytes:
        """The head of the response as bytes, with the framing of the content and Connection; raises as ``_spend``.

        The first part of the content has ``size`` bytes; ``more``: others follow.
        """
        fields, status = self._fields, self.status
        lines, framing, length = fields.lines, b"", fields.length
        self._bodiless = bodiless = self.method == "HEAD" or status in NO_CONTENT
        self._left = length
        if length is None:
            framing = self._framing(size, more)
        elif status == 204:
            lines = lines.replace(b"content-length: %d\r\n" % length, b"")
        if size == length and not (more or bodiless):  # The usual case, without the call of _spend.
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
        if status == 426 and b"upgrade: " in lines:  # Upgrade needs this option (RFC 9110 section 7.8).
            framing += b"connection: upgrade\r\n"
        # Own fields and framing come from the server alone: read_fields has left out the application's.
        return b"".join((STATUS_LINES[status], self.server.own_fields.lines(fields.dated), lines, framing, b"\r\n"))

    def _framing(self, size: int, more: bool) -> bytes:
        """The framing field of a content whose length the application does not give (RFC 9112 section 6)."""
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
        """Whether the unread rest of the body is too large, or too uncertain, to be discarded after the response."""
        # A client that waits for its 100 may send the body after the final response, or may not: nobody can know.
        waits = self._must_continue and not body.received
        return waits or body.left is None or body.left > self.discard_max

    def _spend(self, size: int, more: bool) -> None:
        """Count ``size`` bytes of content against Content-Length, before they are sent; not ``more``: the last ones.

        Raises:
            ApplicationError: there are more or fewer bytes than Content-Length says.
        """
        if self._bodiless:
            return
        if (left := self._left) is not None:
            if size > left:
                raise ApplicationError("the application sent more content than its Content-Length says")
            self._left = left = left - size
            if left and not more:
                raise ApplicationError(f"the application sent {left} bytes less content than its Content-Length says")
        self.bytes_sent += size

    async def _write(self, data: bytes, behind: bytes = b"") -> bool:
        """Send ``data``, then ``behind``, and wait until the socket has taken them; return whether without a wait.

        Cancelled, they are still sent.

        Raises:
            ClientGoneError: the client has gone, or does not read within ``write_timeout``.
        """
        try:
            sent = self._connection.send_now(data)
            if behind:
                sent = self._connection.send_now(behind)
            if not sent:
                await self._connection.send_rest()
            return sent
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise self._lost() from error

    def _lost(self) -> ClientGoneError:
        """Note that the client takes no more bytes; the error to raise."""
        self.response_complete = False  # Before client_left, which does nothing after a complete response.
        self.client_left()
        return ClientGoneError("the client has gone, or does not read")

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """Send an interim response; see ``InboundRequest``."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING:
            raise ApplicationError("the application sent an interim response after the head of its response")
        if head := self._interim_head(status, fields):
            await self._write(head)

    def inform_soon(self, status: int, fields: Sequence[Field]) -> None:
        """Give an interim response to be sent, without waiting; see ``InboundRequest``."""
        if self.gone or self._at is not _NOTHING:
            return
        if head := self._interim_head(status, fields):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # The next send finds the same.
                self._connection.send_now(head)

    def _interim_head(self, status: int, fields: Sequence[Field]) -> bytes:
        """The bytes of an interim response; ``b""`` for one that the client must not, or need not, get."""
        head = interim_head(status, fields)
        if self.version != "1.1":
            return b""
        if status == 100:
            if not self.expects_continue:
                return b""
            self._must_continue = False  # receive must not send a second one.
        return head

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """Send a head, and return the stream of bytes that follows; see ``InboundRequest``."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        if self._at is not _NOTHING or self.body is not None:
            raise ApplicationError("the application took a connection after its response began, or with a body unread")
        head = switching_head(status, fields)
        if not self.became_stream():
            raise ApplicationError(NO_STREAM_FOR_TAKE)
        self.status, self._at, self.keep_alive, self.taken = status, _BODY, False, True
        self.switched_at = trio.current_time()
        await self._write(head)
        return TakenConnection(self._connection, self._write_taken)

    async def _write_taken(self, data: bytes) -> None:
        """Send bytes of the other protocol; raises ``ClientGoneError`` as ``_write``."""
        if self.gone:
            raise ClientGoneError("the client has gone")
        await self._write(data)
        self.bytes_sent += len(data)

    def cut(self, reason: str) -> None:
        """Abort a response by a reset of the connection; see ``InboundRequest``."""
        self.cut_off = True
        self._connection.stream.reset_on_close()
        self.client_left()

    # The place, and foreign code.

    def displace(self, reason: str) -> None:
        """End the request now, count it out and close the connection, to make room for a newer probe."""
        self.own_place().end()
        self._connection.displace()

    def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> Coroutine[Any, Any, None]:
        """Await ``work`` with a copy of the context variables; see ``InboundRequest``."""
        return run_in_own_context(work, begins_to_wait)

    def cancel_apart(self, reason: str) -> None:
        """Cancel the work of ``run_apart``; see ``InboundRequest``."""
        self._connection.cancel_apart(reason)
