"""HTTP/2 stream: one request, and its response under flow control, in a task of their own.

Theory
------
``Stream`` is an ``InboundRequest``. The connection makes it for each accepted head, and starts its task (``run``). In
the other direction the stream *queues* frames with the connection's ``Sender``; a flush writes them. Three things
change independently:

**The response** moves forward only, by the application's calls:

- *nothing* (``status`` is 0): the application has given nothing.
- *head* (``_head_waits``): the application has given a head. It is queued with the first part of the content, so that
  an exception up to here can still be answered with 500.
- *body* (``response_started``): the head is queued. From here on the server can only reset the stream.
- *done* (``response_complete``): END_STREAM is queued. ``_flush_end`` waits until it is written.

An interim response moves nothing. A stream that was taken (RFC 8441) stays in *body* until ``handle`` returns, also
after ``StreamBytes.send_eof``.

**The request's body** moves by the client's frames: ``ReceiveBuffer`` holds what was received. The flow-control window
bounds it, and opens only when the application takes bytes. The client's END_STREAM ends the body, not the stream.

**The count.** The request counts as in flight, as an upload while the server waits for its body, or as a stream of
``max_streams`` (``RequestPlace``). ``count_out`` takes it out of the count that it is in, once: when its response is
done, when it is displaced, or when its task ends.

**Leaving.** ``leave`` ends a stream whose response nobody waits for: after RST_STREAM, the end of the connection, a
write timeout, a displacement, or an error response of the server. It is not called after *done*, because the connection
forgets a stream then (``_forget``). A second call changes nothing. After ``leave``:

- ``gone`` and ``finished`` are set, and the stream queues no frame any more;
- the unread body is given back to the connection's window. A task in ``receive`` wakes and raises
  ``AnsweredByServerError`` if the server has sent the response, else ``ClientGoneError``;
- a task that waits for a window wakes; it and later sends raise ``ClientGoneError``;
- the callback of ``on_gone`` was called, unless ``receive`` raises ``AnsweredByServerError``: one notice is enough.

**Invariants.** ``finished`` or ``gone`` is checked between each wait and the next frame, so the library refuses no
frame. ``Sender.reset`` tolerates a stream that has ended in the library. ``_spend`` compares the content with
Content-Length before a frame is queued. A send returns only when its data is written, so memory stays bounded.

**Cancellation.** The task is cancelled only with the whole connection, when the time of a drain is over; foreign code
also by ``cancel_apart``. A cancel in ``receive`` loses nothing: bytes leave the buffer only in ``take``, after the last
wait. A cancel in ``_flush`` or ``_flush_end`` leaves the queued frames to the next writer. A cancel in ``send`` may
leave a part of its content unqueued; a later send of that response raises ``ApplicationError`` (``_content_torn``), and
the stream is reset. ``StreamBytes`` shields its sends: a WebSocket frame in part would corrupt those behind it. ``run``
ends every stream with a response, a reset or a cancel, counts it out and records it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio
from h2.errors import ErrorCodes

from ...core.inbound import DISCARD_MAX, AnsweredByServerError, ClientGoneError
from ...net.exception_groups import split_application_crash
from ..http1.request_body import too_large
from ..limits.client_clocks import PIECE, BodyClock, WriteClock
from ..limits.fairness import UnsentContent
from ..limits.request_place import CountedRequest
from ..response.access_record import RecordedRequest
from ..response.error_response import ErrorResponse
from ..response.response_head import (
    NO_CONTENT,
    NO_STREAM_FOR_TAKE,
    STATUS_LINES,
    ApplicationError,
    check_interim_status,
    read_fields,
)
from .receive_buffer import ReceiveBuffer
from .request_head import CONNECTION_SPECIFIC, Fields, Head
from .sender import WRITE_TIMEOUT
from .stream_bytes import StreamBytes

if TYPE_CHECKING:
    from ...core.inbound import Field
    from .connection import Http2Connection

_FRAMES_AT_ONCE = 4
"""DATA frames of one response between two flushes."""
_SHARED_FACTOR = 4.0
"""Write timeouts per 64 KiB for a stream that waits for the socket or the connection's window, which all streams share.
A slow link may carry many responses. But the progress of one stream must not keep all others alive."""


class Stream(CountedRequest, RecordedRequest, UnsentContent):
    """HTTP/2 request with its response (``InboundRequest``)."""

    version = "2"
    discard_max = DISCARD_MAX
    """Without effect: the server resets a stream whose body is unread, and the connection goes on."""
    receive_max = PIECE
    """Without effect: the flow-control window bounds what is received."""
    status = 0
    bytes_sent = 0
    gone = False
    response_started = False
    """Whether the head of the final response was queued."""
    response_complete = False
    """Whether the end of the response was queued."""
    finished = False
    """Whether no further frame may be queued: the response is complete, or the stream has left."""
    cut_short = False
    """Whether the response ended early for another reason than that the client left."""
    bodiless = False
    """Whether the response has no content on the wire: to HEAD, or with 204 or 304."""
    _counted = True
    """Whether the request still counts as in flight, as an upload or as a stream."""
    _any_size = False
    """Whether ``max_body`` does not hold for the body."""
    _content_torn = False
    """Whether a cancelled send left a part of its content unqueued. Also set while a send waits with such a part."""
    _head_waits: Fields | None = None
    """The fields of a head that is not queued yet."""
    _promised: float = math.inf
    """Bytes of content that are still to come according to Content-Length; infinite without one."""
    _wants_trailers = False
    _unsent_body: bytes | None = None
    """The content of ``respond`` that did not fit the windows; ``drained`` sends it."""
    _taken: StreamBytes | None = None
    _on_gone: Callable[[], object] | None = None
    _receiving = 0
    """Tasks in ``receive``."""
    _body_clock: BodyClock | None = None
    _window_changed: trio.Event | None = None

    def __init__(self, connection: Http2Connection, stream_id: int, head: Head, *, complete: bool) -> None:
        peer = connection.peer
        self.connection = connection
        self.server = connection.server
        self.stream_id = stream_id
        self.head = head
        self.method = head.method
        self.target = head.path
        self.fields: tuple[Field, ...] = tuple(head.fields)
        self.scheme = "https" if peer.secure else "http"
        self.peer = peer.client
        self.local = peer.server
        self.client_certificate = peer.client_certificate
        self.started = trio.current_time()
        self.content_length = 0 if complete else head.content_length
        self.websocket = head.protocol is not None
        self.takes_trailers = head.takes_trailers
        self.receive_buffer = ReceiveBuffer(lambda amount: connection.sender.acknowledge(stream_id, amount))
        if complete:
            self.receive_buffer.end()
        self._body_size = connection.server.limits.max_body if head.content_length is None else head.content_length
        """Bytes of the body; if its length is unknown, the most that it may have."""
        self._must_continue = head.expects_continue
        """Whether the client still waits for 100 (Continue)."""
        self._window_clock = WriteClock(connection.server)
        """Waits for the stream's own flow-control window."""
        self._shared_clock = WriteClock(connection.server, factor=_SHARED_FACTOR)
        """Waits for the socket and for the connection's window."""
        self._apart = trio.CancelScope()
        """Encloses foreign code; ``cancel_apart`` cancels it."""

    # The task, and the end of it.

    async def run(self) -> None:
        """Have the request answered, end the stream, count it out and record it.

        What the application raises is logged and answered here.

        Raises:
            BaseException: a cancel or the like.
        """
        rest: BaseException | None = None
        try:
            try:
                try:
                    await self.server.handle(self)
                finally:
                    self._on_gone = None  # The application has ended: its callback must not be called any more.
                await self._check_end()
            except BaseException as error:  # noqa: BLE001 - cancels and the like are raised again
                crash, rest = split_application_crash(error)
                if crash is not None:
                    self.server.application_failed("request", crash, gone=self.gone)
                if rest is not None:
                    self.cut_short = self.response_started and not self.finished
                    await self.connection.stop(self, rest)
                    raise rest from None  # A cancel must reach its scope.
            if not self.finished:
                self.connection.application_ended(self)
        finally:
            # Whatever was raised, the task is counted out and the request recorded, each once.
            self.connection.task_ended(self)
            self.connection.record_end(self, rest)

    async def _check_end(self) -> None:
        """End a taken stream; otherwise check that the response is complete.

        Raises:
            ApplicationError: the response is not complete.
        """
        if self._taken is not None:
            await self._taken.send_eof()
            if not self.finished:
                self._end()
        elif not (self.finished or self.crash_recorded):
            raise ApplicationError("the application returned without a whole response")

    def leave(self, reason: str) -> None:
        """End the stream, because nobody waits for its response any more; see the module."""
        # Set before anything is woken: whatever runs next must see that no frame may be queued.
        self.finished = self.gone = True
        self.receive_buffer.leave()
        self.window_changed()
        callback, self._on_gone = self._on_gone, None
        if callback is not None and not (self.server_response is not None and self._receiving):
            callback()

    def window_changed(self) -> None:
        """Wake the task that waits for a window: a window may have opened, or the stream has left."""
        if self._window_changed is not None:
            self._window_changed.set()

    def count_out(self) -> None:
        """Count the request out. A second call does nothing."""
        if self._counted:
            self._counted = False
            self.server.reserve.leave(self)
            if self.place is None:
                self.server.request_ended()
            else:
                self.place.end()

    def displace(self, reason: str) -> None:
        """Count the request out at once and reset the stream, to make room for a newer probe."""
        self.count_out()
        self.connection.displace(self, reason)

    @property
    def stalled(self) -> float:
        """Seconds that the response has waited for the client since it accepted the last 64 KiB."""
        return max(self._window_clock.stalled, self._shared_clock.stalled)

    # The client's leaving, and foreign code.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the client leaves; see ``InboundRequest``."""
        if callback is not None and self.gone:
            callback()
        else:
            self._on_gone = callback

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """Await ``work`` after ``begins_to_wait()``. The task serves nothing else, so the context is not copied."""
        with self._apart:
            begins_to_wait()
            await work

    def cancel_apart(self, reason: str) -> None:
        """Cancel the work of ``run_apart``; see ``InboundRequest``. The connection and its other streams go on."""
        self._apart.cancel(reason=reason)

    def cut(self, reason: str) -> None:
        """Abort a response by RST_STREAM; see ``InboundRequest``."""
        if not self.finished:
            self.cut_short = self.response_started
            self._on_gone = None  # The application needs no notice of its own act.
            self.connection.give_up(self, ErrorCodes.INTERNAL_ERROR, reason)

    # The body of the request.

    @property
    def body_complete(self) -> bool:
        """Whether ``receive`` has returned the whole body; see ``InboundRequest``."""
        return self.receive_buffer.exhausted

    def take_at_most(self, size: int) -> None:
        """Bound the time for a body of unknown length to what ``size`` bytes need; see ``InboundRequest``."""
        if self.head.content_length is None:
            self._body_size = min(self._body_size, size)

    def take_any_size(self) -> None:
        """Lift ``max_body`` and the bound on the whole time of the body; see ``InboundRequest``."""
        self._any_size, self._body_size = True, PIECE

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits for 100 (Continue); see ``InboundRequest``."""
        return self._must_continue and self.receive_buffer.awaited and not self.status

    async def receive(self) -> bytes:
        """Receive the next part of the body, ``b""`` at its end; see ``InboundRequest``."""
        buffer = self.receive_buffer
        if buffer.exhausted and not self.gone:
            return b""
        self._receiving += 1
        try:
            if buffer.awaited and not self._is_too_large:
                await self._wait_for_body()
            if self._is_too_large:
                self._refuse(too_large(self.server.limits))
            elif (error_response := self._refused_when_complete()) is not None:
                self._refuse(error_response)
        finally:
            self._receiving -= 1
        if buffer.gone:
            raise self._gone_error()
        data = buffer.take()
        if self._any_size and self._body_clock is not None:
            self._body_clock.took(len(data))
        self.connection.sender.flush_soon()  # take may have queued WINDOW_UPDATE frames, for which the client waits.
        return data

    @property
    def _is_too_large(self) -> bool:
        """Whether the body is over ``max_body``. A declared length counts before the bytes have come."""
        size = max(self.receive_buffer.received, self.content_length or 0)
        return size > self.server.limits.max_body and not self._any_size

    def _refused_when_complete(self) -> ErrorResponse | None:
        """Count an upload with a complete body in flight again. Return the error response if there is no capacity."""
        if self.place is None or not self.receive_buffer.complete or self.receive_buffer.gone or self.response_started:
            return None
        error_response = self.place.complete()
        # The upstream may have acted on a body that was passed on: it is too late for a refusal.
        return None if self._any_size else error_response

    async def _wait_for_body(self) -> None:
        """Wait as an upload until bytes or the end of the body come. Refuse the request if they come too slowly."""
        buffer, place = self.receive_buffer, self.own_place()
        clock = self._body_clock = self._body_clock or BodyClock(self.server.limits)
        if (error_response := await place.begin_upload(buffer.completed)) is not None:
            self._refuse(error_response)
            return
        # Only with a slot: a client must not be asked for a body that would be refused.
        if self._must_continue and not (self.response_started or self.finished):
            self._must_continue = False
            self.connection.sender.headers(self.stream_id, 100, [])
            await self.connection.sender.flush()
        began = trio.current_time()
        seconds = math.inf if place.is_stream else clock.left(self._body_size)
        with trio.CancelScope(deadline=began + seconds) as scope:
            await buffer.changed()
        clock.waited(trio.current_time() - began)
        if scope.cancelled_caught:
            self._refuse(ErrorResponse(408, "The body did not arrive in time."))

    def _refuse(self, error_response: ErrorResponse) -> None:
        """Respond in the application's place, unless the response is complete or the stream has left."""
        if not self.finished:
            self.connection.refuse(self, error_response)

    def _gone_error(self) -> ClientGoneError:
        """The error for a call on a stream that has left."""
        response = self.server_response
        if response is not None and response.notified:
            return AnsweredByServerError(
                response.error_response.status,
                response.error_response.kind,
                response.error_response.detail,
                response.request_id,
            )
        return ClientGoneError("the client has gone, or does not read")

    # The response.

    @property
    def can_respond(self) -> bool:
        """Whether no byte of a response has been sent; see ``InboundRequest``."""
        return not self.response_started and self.server_response is None

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Queue the whole response; see ``InboundRequest``.

        Returns False: ``drained`` must follow, which writes the queued frames of all streams together.
        """
        self._begin(status, fields)
        sender, size = self.connection.sender, len(body)
        self._spend(size, last=True)
        if self.bodiless or not size:
            self._put_end()
        elif size <= sender.room(self.stream_id):
            # Both windows have room for all of it, so head, content and END_STREAM are queued without a wait.
            self.bytes_sent += size
            self._put_head()
            self._put_data(body, end=True)
            self._end()
        else:
            self._unsent_body = body
        return False

    async def drained(self) -> None:
        """Wait until the client's socket has taken the whole response; see ``InboundRequest``."""
        if self.gone:
            raise self._gone_error()
        body, self._unsent_body = self._unsent_body, None  # Taken before the wait: it must not be sent twice.
        if body is not None:
            await self._send_content(body, end=True)
        else:
            await self._flush_end()

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """Begin a response in parts, without sending anything yet; see ``InboundRequest``."""
        self._begin(status, fields)
        self._wants_trailers = trailers

    async def send(self, data: bytes) -> bool:
        """Send a part of the content; see ``InboundRequest``. Return False: nobody has noted whether it waited.

        Waits until the flow-control windows and the socket have taken all of ``data``.
        """
        self._check_begun()
        self._spend(len(data), last=False)
        if self.bodiless:
            await self._leave_unsent(len(data))
        else:
            await self._send_content(data, end=False)
        # The waits above need not have had one. Without it, an endless response would block the event loop.
        await trio.lowlevel.checkpoint()
        return False

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """End the response that ``start`` began; see ``InboundRequest``.

        Trailers are sent only to a client that accepts them.
        """
        self._check_begun()
        self._spend(len(data), last=True)
        if self.bodiless:
            self._put_end()
        elif self._wants_trailers and self.takes_trailers and trailers:
            read_fields(trailers)
            self._check_whole()
            if data:
                await self._send_content(data, end=False)
                self._check_gone()  # The stream may have left during the wait: no trailers may be queued then.
            self._put_head()
            self.connection.sender.trailers(self.stream_id, sendable(trailers))
            self._end()
        else:
            await self._send_content(data, end=True)
            return
        await self._flush_end()

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """Send an interim response; see ``InboundRequest``."""
        self._check_gone()
        if self.response_started or self.response_complete:
            raise ApplicationError("the application sent an interim response after the head of its response")
        self._put_interim(status, fields)
        await self._flush()

    def inform_soon(self, status: int, fields: Sequence[Field]) -> None:
        """Queue an interim response, without waiting; see ``InboundRequest``."""
        if not (self.gone or self.status or self.finished):
            self._put_interim(status, fields)
            self.connection.sender.flush_soon()

    def _put_interim(self, status: int, fields: Sequence[Field]) -> None:
        """Queue an interim response, unless it is a 100 that the client does not wait for; raises as ``inform``."""
        check_interim_status(status)
        read_fields(fields)
        if status == 100:
            if not self.expects_continue:
                return
            self._must_continue = False  # receive must not send a second one.
        self.connection.sender.headers(self.stream_id, status, sendable(fields))

    async def take(self, status: int, fields: Sequence[Field]) -> StreamBytes:
        """Send a head, and return the stream of bytes that follows; see ``InboundRequest``."""
        if not self.websocket:
            raise ApplicationError("the application took a stream whose request is no extended CONNECT")
        self._check_gone()
        if not self.became_stream():
            raise ApplicationError(NO_STREAM_FOR_TAKE)
        self._begin(status, fields)
        self._put_head()
        self._taken, self.switched_at = StreamBytes(self), trio.current_time()
        await self._flush()
        self._check_gone()
        return self._taken

    def _check_gone(self) -> None:
        if self.gone:
            raise self._gone_error()

    def _check_begun(self) -> None:
        self._check_gone()
        if not self.status or self.response_complete or self._taken is not None:
            raise ApplicationError("the application sent content before the head or after the end of its response")

    def _check_whole(self) -> None:
        if self._content_torn:
            raise ApplicationError("the application sent more content after a send that was cancelled")

    def _begin(self, status: int, fields: Sequence[Field]) -> None:
        """Check and keep the head of the response. Queues nothing; raises as ``respond``."""
        self._check_gone()
        if self.status:
            raise ApplicationError("the application has already started a response to this request")
        if status not in STATUS_LINES:
            raise ApplicationError(f"the application gave the status {status!r}; a final one is 200 to 599")
        checked, head = read_fields(fields), sendable(fields)
        self.bodiless = self.method == "HEAD" or status in NO_CONTENT
        if status == 204:
            head = [field for field in head if field[0] != b"content-length"]  # RFC 9110 section 8.6.
        if checked.length is not None and not self.bodiless:
            self._promised = checked.length
        head += self.server.own_fields.fields(dated=checked.dated)
        self.status, self._head_waits = status, head

    def _spend(self, size: int, *, last: bool) -> None:
        """Count ``size`` bytes of content against Content-Length, before they are queued; ``last``: no more follow.

        Raises:
            ApplicationError: there are more or fewer bytes than Content-Length says.
        """
        if self.bodiless:
            return
        self._promised -= size
        if self._promised < 0:
            raise ApplicationError("the application sent more content than its Content-Length says")
        if last and self._promised not in (0, math.inf):
            raise ApplicationError(
                f"the application sent {self._promised} bytes less content than its Content-Length says"
            )

    def _put_head(self, *, end: bool = False) -> None:
        """Queue the head if it waits; ``end``: with END_STREAM."""
        if self._head_waits is not None and not self.finished:
            fields, self._head_waits = self._head_waits, None
            self.connection.sender.headers(self.stream_id, self.status, fields, end=end)
            self.response_started = True

    def _put_data(self, data: bytes, *, end: bool) -> None:
        """Queue ``data`` as DATA frames. The windows must have room for it."""
        sender, connection, stream_id = self.connection.sender, self.connection, self.stream_id
        size_max = sender.frame_max
        for start in range(0, len(data), size_max):
            piece = data[start : start + size_max]
            connection.send_data(stream_id, piece, end=end and start + size_max >= len(data))
            self._window_clock.took(len(piece))
            self._shared_clock.took(len(piece))

    def _put_end(self) -> None:
        """Queue END_STREAM, with the head if it waits."""
        if self._head_waits is not None:
            self._put_head(end=True)
        else:
            self.connection.send_data(self.stream_id, b"", end=True)
        self._end()

    def _end(self) -> None:
        """Note that the response is complete. The unread rest of the body is dropped."""
        self.finished = self.response_complete = True
        # Read before leave. The unread bytes go back to the connection's window, or other uploads would stall.
        complete = self.receive_buffer.complete
        self.receive_buffer.leave()
        self._on_gone = None
        self.connection.response_ended(self, complete=complete)

    async def _send_content(self, data: bytes, *, end: bool) -> None:
        """Send a part of the content as the windows allow, and wait until all of it is written.

        A client that does not accept 64 KiB within the write timeout gets a reset. Only waits count (``WriteClock``);
        an opening of a window does not start the time anew. A cancel may leave a part of ``data`` unqueued. The
        response must not go on then: the client would take the content around the gap for the whole.

        Raises:
            ClientGoneError: the stream has left.
            ApplicationError: an earlier call was cancelled with a part unqueued.
        """
        self._check_whole()
        if end and not data:
            self._put_end()
            await self._flush_end()
            return
        self._put_head()
        self.bytes_sent += len(data)
        view, frames = memoryview(data), 0
        # The stream may leave during each wait. Checked here, no frame is queued for it afterwards.
        while view and not self.finished:
            window = self.connection.sender.window(self.stream_id)
            if window <= 0:
                self._content_torn = True  # Until the wait has ended: a cancel in it leaves the rest unqueued.
                # The client can open a window only for frames that it has received.
                await self._flush()
                await self._wait_for_window()
                self._content_torn = False
                continue
            piece, view = view[:window], view[window:]
            self._put_data(bytes(piece), end=end and not view)
            frames += 1
            if view and frames % _FRAMES_AT_ONCE == 0:
                self._content_torn = True
                await self._flush()
                self._content_torn = False
        if end and not self.finished:
            self._end()
            await self._flush_end()
        else:
            await self._flush()
            self._check_gone()

    async def _leave_unsent(self, size: int) -> None:
        """Drop a part of the content of a response without content; send the head now, and at the bound the end.

        Raises:
            ClientGoneError: the bound of ``UnsentContent`` was reached, or the stream has left.
        """
        self._put_head()
        await self._flush()
        if not self.finished and not self.leave_unsent(size, self.server.limits.write_timeout):
            self._put_end()
            self.gone = True
            await self._flush_end()
        self._check_gone()

    async def _wait_for_window(self) -> None:
        """Wait until a window may have opened, or the stream has left. At the deadline, reset the stream."""
        if self._window_changed is None or self._window_changed.is_set():
            self._window_changed = trio.Event()
        if self.finished or self.connection.sender.window(self.stream_id) > 0:
            return  # The window opened during the flush. Waiting now would miss that change.
        clocks = [self._window_clock]
        if self.connection.sender.connection_window <= 0:
            clocks = [self._shared_clock, self.connection.window_clock]
        for clock in clocks:
            clock.begin()
        try:
            # The deadline of the connection's clock moves while other streams make progress, so it is read again.
            while (deadline := min(clock.deadline for clock in clocks)) > trio.current_time():
                with trio.CancelScope(deadline=deadline) as scope:
                    await self._window_changed.wait()
                if not scope.cancelled_caught:
                    return
        finally:
            for clock in clocks:
                clock.end()
        self.connection.give_up(self, ErrorCodes.CANCEL, WRITE_TIMEOUT)

    async def _flush(self) -> None:
        """Write the queued frames of all streams. If the socket takes them too slowly, reset this stream."""
        with trio.CancelScope(deadline=self._shared_clock.begin()) as scope:
            try:
                await self.connection.sender.flush()
            finally:
                await self._shared_clock.end_write()
        if scope.cancelled_caught and not self.finished:
            self.connection.give_up(self, ErrorCodes.CANCEL, WRITE_TIMEOUT)

    async def _flush_end(self) -> None:
        """Wait until the end of the response is written. The clock of the connection bounds the wait.

        Raises:
            ClientGoneError: the connection broke before all was written.
        """
        sender = self.connection.sender
        await sender.flush_together()
        if sender.broken:
            self.gone = True
            raise self._gone_error()


def sendable(fields: Sequence[Field]) -> Fields:
    """``fields`` without the connection-specific ones (RFC 9113 section 8.2.2), names in lower case."""
    lower = [(bytes(name).lower(), bytes(value)) for name, value in fields]
    return [field for field in lower if field[0] not in CONNECTION_SPECIFIC]
