"""An HTTP/2 stream: a request, its response under flow control, and the task in which the application answers.

``Stream`` is an ``InboundRequest``. It knows bytes and frames, and nothing of what an application says by ASGI.

Theory
------
A stream is made by its connection when the head of a request has been accepted, and runs in a task of its own.
Three things move independently of each other:

**The response**, moved by the application alone:

- ``NOTHING`` (``status`` is 0): no head was given.
- ``HEAD`` (``_head_waits``): ``start`` or ``respond`` has given a head. It goes out with the first part of the content,
  so that whatever fails until then can still be answered with 500.
- ``BODY`` (``response_started``): the head has been put to what is to be sent. From here on the server can only reset.
- ``DONE`` (``response_complete``): the end of the stream has been put. Its sender waits until it is written.

A response of 1xx goes out at once and moves nothing. A stream that was taken (RFC 8441) is in ``BODY`` until ``handle``
returns, whatever ends the application has sent before.

**The request's body**, moved by the connection: ``ReceiveBuffer`` collects what comes, bounded by the window. The
window opens when the application takes it, so an application that does not read stops its client.

**The count**: the request counts as one in flight until it becomes an upload (``Upload``), and is counted out
once: when its response is ``DONE``, when it is displaced, or when its task ends.

A stream *leaves* once (``leave``): RST_STREAM of the client, the connection's end, a write timeout, or an error
response of the server's own. It leaves in any state but ``DONE``, after which the connection has forgotten it. Then

- ``gone`` is set, the connection has forgotten it, and nothing more is put to what is to be sent;
- the unread body is given back to the connection's window, and whoever waits in ``receive`` is woken: it raises
  ``AnsweredByServerError`` if the server has answered (``server_response``), else ``ClientGoneError``;
- whoever waits for a window or for the socket is woken, and raises ``ClientGoneError``;
- the callback of ``on_gone`` is called, so that an application that waits for something else hears of it. Where the
  server has answered and somebody waits in ``receive``, the exception says it and nobody is called.

The client's END_STREAM is the end of the body, and no leaving. What the states of the protocol library say of the same
stream is never asked: a frame that the library would refuse is not put, because ``leave`` came first. Each reset goes
through ``Sender.reset``, which does nothing where the library knows that the stream has ended.

The application runs in the stream's own task. It is cancelled only with the whole connection, when the grace of a drain
is over. Code of others may be cancelled before that by the adapter that runs it (``asgi.py``).
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
from ..limits.client_clocks import BodyClock, WriteClock
from ..limits.fairness import UnsentContent
from ..limits.upload import Upload
from ..response.access_record import RecordedRequest
from ..response.error_response import ErrorResponse
from ..response.response_head import NO_CONTENT, STATUS_LINES, ApplicationError, read_fields
from .receive_buffer import ReceiveBuffer
from .request_head import CONNECTION_SPECIFIC, Fields, Head
from .sender import WRITE_TIMEOUT

if TYPE_CHECKING:
    from ...core.inbound import Field
    from .connection import Http2Connection

_FRAMES_AT_ONCE = 4
"""Frames of one response between two looks at the socket."""
_SHARED_FACTOR = 4.0
"""A stream that waits for what all streams share (the socket, the connection's window) has so many write timeouts per
64 KiB: a slow link may carry many responses, but one stream that flows must not keep the others alive."""


class Stream(RecordedRequest, UnsentContent):
    """A request and its response (``InboundRequest``). ``run`` is its task."""

    version = "2"
    discard_max = DISCARD_MAX
    """Has no effect: a stream of HTTP/2 ends alone, whatever is left of its body."""
    status = 0
    bytes_sent = 0
    gone = False
    response_started = False
    """Whether the head of a response has been put to what is to be sent."""
    response_complete = False
    finished = False
    """Whether nothing more is to be sent: all of it was, or nobody waits for it."""
    cut_short = False
    """Whether its response has ended in the middle, and not because its client left."""
    bodiless = False
    """Whether the response has no content, whatever its application sends."""
    upload: Upload | None = None
    """What the request counts as, where its body was waited for; else it is in flight."""
    _counted = True
    _head_waits: Fields | None = None
    _promised: float = math.inf
    """Bytes of the response's content that its Content-Length still promises."""
    _wants_trailers = False
    _unsent_body: bytes | None = None
    """The content of a whole response that did not fit the windows."""
    _taken: StreamBytes | None = None
    _on_gone: Callable[[], object] | None = None
    _receiving = 0
    """Tasks that wait in ``receive``."""
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
        """Bytes that the body has, or may have at most where nobody knows."""
        self._must_continue = head.expects_continue
        self._window_clock = WriteClock(connection.server)
        """Of the stream's own flow-control window."""
        self._shared_clock = WriteClock(connection.server, factor=_SHARED_FACTOR)
        self._apart = trio.CancelScope()
        """Around foreign code."""

    # The task, and the end of it.

    async def run(self) -> None:
        """The stream's task, from the application's call to its end. Whatever the application raises ends here."""
        rest: BaseException | None = None
        try:
            try:
                try:
                    await self.server.handle(self)
                finally:
                    self._on_gone = None
                await self._check_end()
            except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
                crash, rest = split_application_crash(error)
                if crash is not None:
                    self.server.application_failed("request", crash, gone=self.gone)
                if rest is not None:
                    self.cut_short = self.response_started and not self.finished
                    await self.connection.stop(self, rest)
                    raise rest from None
            if not self.finished:
                self.connection.application_ended(self)
        finally:
            self.connection.task_ended(self)
            self.connection.record_end(self, rest)

    async def _check_end(self) -> None:
        """See that the application has given a whole response.

        Raises:
            ApplicationError: it has not.
        """
        if self._taken is not None:
            await self._taken.send_eof()
            if not self.finished:
                self._end()
        elif not (self.finished or self.crash_recorded):
            raise ApplicationError("the application returned without a whole response")

    def leave(self, reason: str) -> None:
        """End the stream, because nobody waits for its response any more; see the module."""
        self.finished = self.gone = True
        self.receive_buffer.leave()
        self.window_changed()
        callback, self._on_gone = self._on_gone, None
        if callback is not None and not (self.server_response is not None and self._receiving):
            callback()

    def window_changed(self) -> None:
        """One of the windows may have opened, or nobody sends any more: whoever waits is to look."""
        if self._window_changed is not None:
            self._window_changed.set()

    def count_out(self) -> None:
        """Count the request out of those in flight; a second call does nothing."""
        if self._counted:
            self._counted = False
            self.server.reserve.requests.pop(self, None)
            if self.upload is None:
                self.server.request_ended()
            else:
                self.upload.end()

    def displace(self, reason: str) -> None:
        """Give the response up; it counts as ended from now on."""
        self.count_out()
        self.connection.displace(self, reason)

    @property
    def stalled(self) -> float:
        """Seconds that the response has waited for its client since the last 64 KiB."""
        return max(self._window_clock.stalled, self._shared_clock.stalled)

    # The client's leaving, and tasks.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """As of ``InboundRequest``."""
        if callback is not None and self.gone:
            callback()
        else:
            self._on_gone = callback

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """As of ``InboundRequest``: the stream has a task of its own, which serves nothing else."""
        with self._apart:
            begins_to_wait()
            await work

    def cancel_apart(self, reason: str) -> None:
        """As of ``InboundRequest``."""
        self._apart.cancel(reason=reason)

    def cut(self, reason: str) -> None:
        """As of ``InboundRequest``: by a reset."""
        if not self.finished:
            self.cut_short = self.response_started
            self._on_gone = None  # It is the application's own doing.
            self.connection.give_up(self, ErrorCodes.INTERNAL_ERROR, reason)

    # The body.

    @property
    def body_complete(self) -> bool:
        """As of ``InboundRequest``."""
        return self.receive_buffer.exhausted

    def take_at_most(self, size: int) -> None:
        """As of ``InboundRequest``."""
        if self.head.content_length is None:
            self._body_size = min(self._body_size, size)

    async def receive(self) -> bytes:
        """As of ``InboundRequest``. A body that is too slow or too large is refused."""
        buffer = self.receive_buffer
        if buffer.exhausted and not self.gone:
            return b""
        self._receiving += 1
        try:
            if buffer.awaited:
                await self._wait_for_body()
            if buffer.received > self.server.limits.max_body:
                self._refuse(too_large(self.server.limits))
            elif (error_response := self._refused_when_complete()) is not None:
                self._refuse(error_response)
        finally:
            self._receiving -= 1
        if buffer.gone:
            raise self._gone_error()
        data = buffer.take()
        self.connection.sender.flush_soon()
        return data

    def _refused_when_complete(self) -> ErrorResponse | None:
        """Why the request, whose body was waited for and is complete, is not in flight again; None where it is."""
        if self.upload is None or not self.receive_buffer.complete or self.receive_buffer.gone or self.response_started:
            return None
        return self.upload.complete()

    async def _wait_for_body(self) -> None:
        """Wait until something comes, as an upload; only the time that we wait counts against the client."""
        buffer = self.receive_buffer
        if self.upload is None:
            self.upload = Upload(self.server)
            self._body_clock = BodyClock(self.server.limits)
        clock = self._body_clock
        assert clock is not None, "made with the place"
        if (error_response := await self.upload.begin(buffer.completed)) is not None:
            self._refuse(error_response)
            return
        if self._must_continue and not self.response_started:
            self._must_continue = False
            self.connection.sender.headers(self.stream_id, 100, [])
            await self.connection.sender.flush()
        began = trio.current_time()
        with trio.CancelScope(deadline=began + clock.left(self._body_size)) as scope:
            await buffer.changed()
        clock.waited(trio.current_time() - began)
        if scope.cancelled_caught:
            self._refuse(ErrorResponse(408, "The body did not arrive in time."))

    def _refuse(self, error_response: ErrorResponse) -> None:
        if not self.finished:
            self.connection.refuse(self, error_response)

    def _gone_error(self) -> ClientGoneError:
        """What to raise to whoever reads or answers, where nobody is there."""
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
        """As of ``InboundRequest``."""
        return not self.response_started and self.server_response is None

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """As of ``InboundRequest``. Always False: what all streams put in a turn of the loop is written together."""
        self._begin(status, fields)
        sender, size = self.connection.sender, len(body)
        self._spend(size, last=True)
        if self.bodiless or not size:
            self._put_end()
        elif size <= sender.room(self.stream_id):
            self.bytes_sent += size
            self._put_head()
            self._put_data(body, end=True)
            self._end()
        else:
            self._unsent_body = body
        return False

    async def drained(self) -> None:
        """As of ``InboundRequest``."""
        if self.gone:
            raise self._gone_error()
        body, self._unsent_body = self._unsent_body, None
        if body is not None:
            await self._send_content(body, end=True)
        else:
            await self._flush_end()

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """As of ``InboundRequest``."""
        self._begin(status, fields)
        self._wants_trailers = trailers

    async def send(self, data: bytes) -> None:
        """As of ``InboundRequest``: the application waits until the windows and the socket have taken it."""
        self._check_begun()
        self._spend(len(data), last=False)
        if self.bodiless:
            await self._leave_unsent(len(data))
        else:
            await self._send_content(data, end=False)
        await trio.lowlevel.checkpoint()

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """As of ``InboundRequest``. Trailers that the client does not read are left out."""
        self._check_begun()
        self._spend(len(data), last=True)
        if self.bodiless:
            self._put_end()
        elif self._wants_trailers and self.takes_trailers and trailers:
            read_fields(trailers)
            if data:
                await self._send_content(data, end=False)
                self._check_gone()
            self._put_head()
            self.connection.sender.trailers(self.stream_id, sendable(trailers))
            self._end()
        else:
            await self._send_content(data, end=True)
            return
        await self._flush_end()

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """As of ``InboundRequest``."""
        self._check_gone()
        if self.response_started or self.response_complete or not 100 <= status < 200 or status == 101:
            raise ApplicationError(f"the application sent {status!r} as an interim response, or too late")
        read_fields(fields)
        self.connection.sender.headers(self.stream_id, status, sendable(fields))
        await self._flush()

    async def take(self, status: int, fields: Sequence[Field]) -> StreamBytes:
        """As of ``InboundRequest``."""
        if not self.websocket:
            raise ApplicationError("the request is no extended CONNECT, and its stream cannot be taken")
        self._begin(status, fields)
        self._put_head()
        self._taken = StreamBytes(self)
        await self._flush()
        self._check_gone()
        return self._taken

    def _check_gone(self) -> None:
        if self.gone:
            raise self._gone_error()

    def _check_begun(self) -> None:
        self._check_gone()
        if not self.status or self.response_complete or self._taken is not None:
            raise ApplicationError("the application sent content out of turn")

    def _begin(self, status: int, fields: Sequence[Field]) -> None:
        """Take the head of the response, which goes out with what follows."""
        self._check_gone()
        if self.status:
            raise ApplicationError("the application began its answer twice")
        if status not in STATUS_LINES:
            raise ApplicationError(f"the application answered with the status {status!r}")
        checked, head = read_fields(fields), sendable(fields)
        self.bodiless = self.method == "HEAD" or status in NO_CONTENT
        if status == 204:
            head = [field for field in head if field[0] != b"content-length"]  # RFC 9110 section 8.6.
        if checked.length is not None and not self.bodiless:
            self._promised = checked.length
        head += self.server.own_fields.fields(dated=checked.dated)
        self.status, self._head_waits = status, head

    def _spend(self, size: int, *, last: bool) -> None:
        """Hold the application to its Content-Length, before anything goes out that breaks it."""
        if self.bodiless:
            return
        self._promised -= size
        if self._promised < 0:
            raise ApplicationError("the application sent more than its Content-Length")
        if last and self._promised not in (0, math.inf):
            raise ApplicationError(f"the application sent {self._promised} bytes less than its Content-Length")

    def _put_head(self, *, end: bool = False) -> None:
        """Put the head that waits to what is to be sent."""
        if self._head_waits is not None and not self.finished:
            fields, self._head_waits = self._head_waits, None
            self.connection.sender.headers(self.stream_id, self.status, fields, end=end)
            self.response_started = True

    def _put_data(self, data: bytes, *, end: bool) -> None:
        """Put DATA frames, for which the windows have room."""
        sender, connection, stream_id = self.connection.sender, self.connection, self.stream_id
        size_max = sender.frame_max
        for start in range(0, len(data), size_max):
            piece = data[start : start + size_max]
            connection.send_data(stream_id, piece, end=end and start + size_max >= len(data))
            self._window_clock.took(len(piece))
            self._shared_clock.took(len(piece))

    def _put_end(self) -> None:
        """Put the head, if it waits, and the end of the stream."""
        if self._head_waits is not None:
            self._put_head(end=True)
        else:
            self.connection.send_data(self.stream_id, b"", end=True)
        self._end()

    def _end(self) -> None:
        """All has been put. A body that the client is still sending is of no use to anybody."""
        self.finished = self.response_complete = True
        complete = self.receive_buffer.complete
        self.receive_buffer.leave()
        self._on_gone = None
        self.connection.response_ended(self, complete=complete)

    async def _send_content(self, data: bytes, *, end: bool) -> None:
        """A part of the content, as the client's windows allow: the application waits, and nothing piles up.

        A client that does not accept 64 KiB within the write timeout loses the response (``WriteClock``). Neither an
        opening of a window nor a further part of the body starts that time anew; time in which nothing waits to be
        sent does not count.
        """
        if end and not data:
            self._put_end()
            await self._flush_end()
            return
        self._put_head()
        self.bytes_sent += len(data)
        view, frames = memoryview(data), 0
        while view and not self.finished:
            window = self.connection.sender.window(self.stream_id)
            if window <= 0:
                await self._flush()
                await self._wait_for_window()
                continue
            piece, view = view[:window], view[window:]
            self._put_data(bytes(piece), end=end and not view)
            frames += 1
            if view and frames % _FRAMES_AT_ONCE == 0:
                await self._flush()
        if end and not self.finished:
            self._end()
            await self._flush_end()
        else:
            await self._flush()
            self._check_gone()

    async def _leave_unsent(self, size: int) -> None:
        """Take a part of content that is not sent. The client gets the head now, and at the bound the end."""
        self._put_head()
        await self._flush()
        if not self.finished and not self.leave_unsent(size, self.server.limits.write_timeout):
            self._put_end()
            self.gone = True
            await self._flush_end()
        self._check_gone()

    async def _wait_for_window(self) -> None:
        if self._window_changed is None or self._window_changed.is_set():
            self._window_changed = trio.Event()
        if self.finished or self.connection.sender.window(self.stream_id) > 0:
            return  # it was opened while we wrote
        clocks = [self._window_clock]
        if self.connection.sender.connection_window <= 0:
            clocks = [self._shared_clock, self.connection.window_clock]
        for clock in clocks:
            clock.begin()
        try:
            # Other streams may make progress meanwhile, which moves the connection's deadline.
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
        """Have written what is to be sent. A stream that waits too long for the socket loses its response."""
        with trio.CancelScope(deadline=self._shared_clock.begin()) as scope:
            try:
                await self.connection.sender.flush()
            finally:
                await self._shared_clock.end_write()
        if scope.cancelled_caught and not self.finished:
            self.connection.give_up(self, ErrorCodes.CANCEL, WRITE_TIMEOUT)

    async def _flush_end(self) -> None:
        """Have the end of the response written, which the connection's own clock bounds."""
        sender = self.connection.sender
        await sender.flush_together()
        if sender.broken:
            self.gone = True
            raise self._gone_error()


class StreamBytes:
    """The bytes of both directions of a stream (``ByteStream``): what DATA frames carry."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        """Held while a caller's bytes are sent, for that may have to wait for the window in their middle."""
        self._eof_sent = False

    async def receive_some(self) -> bytes:
        """As of ``ByteStream``."""
        stream = self._stream
        buffer = stream.receive_buffer
        if buffer.gone or buffer.exhausted:
            await trio.lowlevel.checkpoint()
            return b""
        await buffer.changed()
        if buffer.gone:
            return b""
        data = buffer.take()
        stream.connection.sender.flush_soon()
        return data

    async def send_all(self, data: bytes) -> None:
        """As of ``ByteStream``."""
        # Shielded: half a frame would spoil the rest. Each wait has its deadline, and ends when the client leaves.
        with trio.CancelScope(shield=True):
            async with self._sending:
                if self._eof_sent:
                    raise trio.ClosedResourceError("the end has been sent")
                if not self._stream.finished:
                    await self._stream._send_content(data, end=False)
        self._stream._check_gone()

    async def send_eof(self) -> None:
        """As of ``ByteStream``."""
        with trio.CancelScope(shield=True):
            async with self._sending:
                if not self._eof_sent and not self._stream.finished:
                    self._eof_sent = True
                    self._stream.connection.send_data(self._stream.stream_id, b"", end=True)
                    await self._stream._flush()


def sendable(fields: Sequence[Field]) -> Fields:
    """Fields as HTTP/2 may bear them."""
    lower = [(bytes(name).lower(), bytes(value)) for name, value in fields]
    return [field for field in lower if field[0] not in CONNECTION_SPECIFIC]
