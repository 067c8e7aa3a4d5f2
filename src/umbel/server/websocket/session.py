"""WebSocket session: the protocol between an ASGI application and the bytes of a connection, or of an HTTP/2 stream.

Theory
------
Three parties act on a WebSocket, each in tasks of its own:

- the *application* calls ``receive`` and ``send``, from any number of tasks;
- the *reader* (``_read``) runs from the accept on. It alone receives bytes, feeds them to wsproto, answers pings and
  the client's close frame, and queues messages for the application;
- the *server* sends pings, closes during a drain, bounds the wait for the client's close frame, and reports that the
  client has gone.

**States** (``_state``)::

    CONNECTING --websocket.accept--> ACCEPTING --> OPEN ----> CLOSED
        |                                                       ^
        '--websocket.close, websocket.http.response--> REFUSING-'

Only the application moves to ACCEPTING, REFUSING and OPEN, because it decides the response to the handshake. An accept
that fails moves back to CONNECTING. CLOSED is reached from every state. Within OPEN, wsproto holds the state of the
closing handshake: messages can be sent until either side has sent a close frame. Each party may send the server's close
frame. For a second one wsproto raises ``LocalProtocolError``: the reader and the server leave theirs out, and the
application gets ``ClientGoneError``, or ``ApplicationError`` if it had closed the WebSocket itself before.

**The end.** ``_end`` alone moves to CLOSED. It is synchronous and does nothing the second time, so the first code and
reason win. It sets the code of the disconnect and closes the queue behind the messages in it. Then it ends the
application. An application with a task in ``receive``, which gets the messages and the disconnect, has
``cancel_timeout`` to return; without one it is cancelled at once. After a whole response that refuses the handshake
(``_end_refused``) the application is not ended. ``run`` calls ``_end`` in its ``finally``, so CLOSED is always reached.

**Order of the bytes.** wsproto encodes an event and the stream sends the bytes under ``_writing``, with no wait in
between: the compression context requires that both orders are equal. ``_messages`` is held for a whole message: only
control frames come between its fragments (RFC 6455 section 5.4). A task that needs both locks takes ``_messages``
first.

**Back-pressure.** The queue holds ``max_app_queue_size`` messages. While it is full, the reader waits in
``_take_event`` and reads nothing, so TCP or the flow-control window holds the client back. Pings are not answered then.

**The client's leaving.** Until the accept, ``on_gone`` reports it. Afterwards the reader finds the end of the client's
sending, behind all bytes before it, and ``on_gone`` reports a reset.

**Cancellation.** ``run`` is cancelled only with its connection. The session cancels the application through ``_scope``,
in which nothing else runs, so it can still send its close frame. A cancel in ``receive`` loses no message. A cancel in
``send`` never sends a frame in part: ``ByteStream.send_all`` and ``_send_fragments`` are shielded, and each of their
waits has a deadline. When the application has ended, the nursery's scope is cancelled: the reader and the pings end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import trio
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError
from ...net.exception_groups import split_application_crash
from ..asgi import ASGI, tls_extension
from ..limits.client_clocks import BodyClock
from ..limits.fairness import BoundedCalls
from ..phase import Phase
from ..response.access_record import RECORD, RecordedRequest, corrected
from ..response.error_response import NO_STREAM_LEFT, ErrorResponse, ServerResponse
from ..response.response_head import STATUS_LINES, ApplicationError
from .frame_tracker import FrameTracker
from .handshake import in_lower_case
from .rejected_handshake import record_rejected, send_error_response

if TYPE_CHECKING:
    from ...core.events import Recorder, RequestEnded
    from ...core.inbound import ByteStream, Field, InboundRequest
    from ..state import ServerState
    from .handshake import OpeningHandshake

Message = dict[str, Any]
Content = str | bytes | bytearray

# Close codes (RFC 6455 section 7.4.1).
_DEFINED_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
"""Close codes of the protocol that a close frame may have (RFC 6455 section 7.4.1 and IANA's registry)."""
_FREE_CODES = range(3000, 5000)
"""Close codes of applications and libraries (RFC 6455 section 7.4.2)."""
_NORMAL, _GOING_AWAY, _ABNORMAL, _TOO_SLOW, _TOO_BIG, _INTERNAL_ERROR = 1000, 1001, 1006, 1008, 1009, 1011
_PIECE, _COMPRESSED_PIECE = 4096, 1024
"""Bytes that are fed to wsproto between two checkpoints. Compressed bytes may expand a thousandfold."""
_FRAGMENT = 32 * 1024
"""Bytes or characters that are compressed between two checkpoints. zlib compresses 13 MB of text per second."""
_LINGER_S, _LINGER_MAX = 1.0, 2**20
"""Seconds and bytes for which the server reads after its close frame, if the client has not sent one."""

_CRASHED = ErrorResponse(500, "The WebSocket failed inside the application.", Kind.INTERNAL)
_GONE = "the client has gone, or the WebSocket is closed"
_DRAINS = "the server is going away"


class State(Enum):
    """States of a WebSocket; see the module."""

    CONNECTING = auto()
    ACCEPTING = auto()
    REFUSING = auto()
    OPEN = auto()
    CLOSED = auto()


class WebSocketSession(BoundedCalls, RecordedRequest):
    """One WebSocket, from the parsed handshake to its end: ``run`` serves it, ``receive`` and ``send`` are ASGI's."""

    def __init__(self, server: ServerState, app: Any, request: InboundRequest, opening: OpeningHandshake) -> None:
        self._server = server
        self._app = app
        self._request = request
        self._opening = opening
        self._state = State.CONNECTING
        self._over = trio.Event()
        """Set in state CLOSED."""
        self._closed_by_application = False
        """Whether the application has closed or refused the WebSocket: a later ``send`` is an application error."""
        self._client_closed = False
        """Whether the client's close frame has come. The client sends nothing after it (RFC 6455 section 5.5.1)."""
        self._crashed = False
        """Whether the application has raised."""
        self._draining = False
        self.end_reason = str(Kind.CLIENT_GONE)
        """The cancel reason for an application that must end, for this session or for a framework that it notifies."""
        self._scope = trio.CancelScope()
        """Encloses the application alone."""
        self._listeners = 0
        """Tasks in ``receive``."""
        self._disconnect: Message = {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
        self._queue_in, self._queue_out = trio.open_memory_channel[Message](server.config.max_app_queue_size)
        self._queue_in.send_nowait({"type": "websocket.connect"})
        self._denial: tuple[int, list[Field]] | None = None
        """Status and fields of the application's response to a refused handshake, until its content begins."""
        self._stream: ByteStream | None = None
        """Set, like ``_ws``, with the accept."""
        self._ws: Connection
        self._writing = trio.Lock()
        self._messages = trio.Lock()
        self._frames = FrameTracker()
        self._message_clock = BodyClock(server.limits)
        """Waits for the incomplete frame or message."""
        self._incoming = _IncomingMessage(server.config.websocket_max_message_size)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Run the application, close the WebSocket, and write the record. What the application raises is logged here.

        Raises:
            BaseException: a cancel or the like.
        """
        try:
            await self._serve()
            if self._stream is not None:
                await self._linger(self._stream)
            elif self._state is not State.CLOSED:
                await self._respond_for_application()
        finally:
            self._end(_ABNORMAL)
            self._hand_record_over()

    async def _serve(self) -> None:
        """Run the application, with the reader and the server's tasks beside it. Then close the WebSocket if open."""
        async with trio.open_nursery() as self._nursery:
            # Before the application starts: neither a drain nor the client's leaving may be missed.
            self._server.open.add(self)
            self._request.on_gone(self._client_gone)
            try:
                if self._server.phase.value >= Phase.DRAINING:
                    self.drain(trio.current_time())
                await self._request.run_apart(self._call_application(), _nothing)
                if self._state is State.OPEN:
                    await self._send_close(_INTERNAL_ERROR if self._crashed else _NORMAL)
                    # The reader still runs, and ends the WebSocket with the client's close frame.
                    with trio.move_on_after(self._server.limits.cancel_timeout):
                        await self._over.wait()
            finally:
                self._server.open.discard(self)
                self._request.on_gone(None)
            self._nursery.cancel_scope.cancel(reason="the application has ended")

    async def _call_application(self) -> None:
        """Call the application in ``_scope``; log what it raises, and raise a cancel of another scope again."""
        try:
            with self._scope:
                await self._app(self._asgi_scope(), self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - cancels and the like are raised again
            crash, rest = split_application_crash(error)
            if crash is not None:
                self._crashed = True
                self._server.application_failed("websocket", crash, gone=self.gone)
            if rest is not None:
                raise rest from None

    def _asgi_scope(self) -> Message:
        server, request = self._server, self._request
        raw_path, _, query = request.target.partition(b"?")
        return {
            "type": "websocket",
            "asgi": ASGI,
            "http_version": request.version,
            "scheme": "wss" if request.scheme == "https" else "ws",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": server.root_path,
            "headers": list(request.fields),
            "client": request.peer,
            "server": request.local,
            "subprotocols": self._opening.subprotocols,
            "state": server.lifespan_state.copy(),
            "extensions": {"websocket.http.response": {}, RECORD: self, **tls_extension(request)},
        }

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: ``websocket.connect``, then the messages, then ``websocket.disconnect`` at each call.

        A cancel loses no message.
        """
        await self.count_call()
        self._listeners += 1
        try:
            return await self._queue_out.receive()
        except trio.EndOfChannel:
            await self.count_late_call()
            return self._disconnect
        finally:
            self._listeners -= 1

    async def send(self, message: Message) -> None:
        """ASGI's ``send``. Cancelled, a message is sent as a whole or not at all.

        Raises:
            ClientGoneError: the client has closed the WebSocket, has left or does not read; or a drain has closed it.
            ApplicationError: the application has closed or refused the WebSocket before, the message is not allowed in
                this state, or its content or a header field breaks a rule.
        """
        await self.count_call()
        if self._is_closed:
            await self.count_late_call()
            if self._closed_by_application:
                raise ApplicationError(f"the application sent {message['type']!r} after it had closed the WebSocket")
            self.gone = True
            raise ClientGoneError(_GONE)
        match self._state, message["type"]:
            case State.CONNECTING, "websocket.accept":
                await self._accept(message)
            case State.CONNECTING, "websocket.close":
                fields = self._server.completed_fields(self._request, [(b"content-length", b"0")])
                await self._refuse_whole(403, fields, b"")
            case State.CONNECTING, "websocket.http.response.start":
                self._begin_denial(message)
            case State.REFUSING, "websocket.http.response.body":
                await self._send_denial(message)
            case State.OPEN, "websocket.send":
                await self._send_message(message)
            case State.OPEN, "websocket.close":
                await self._close(message)
            case _, kind:
                raise ApplicationError(f"the application sent {kind!r} while the WebSocket was {self._state.name}")

    @property
    def _is_closed(self) -> bool:
        """Whether no message can be sent: either side has sent a close frame, or the state is CLOSED."""
        return self._state is State.CLOSED or (self._state is State.OPEN and self._ws.state is not ConnectionState.OPEN)

    def stop_endless(self, reason: str) -> None:
        """Cancel the application, because it keeps calling after the end; see ``BoundedCalls``."""
        self._server.note_endless(reason)
        self._scope.cancel(reason=reason)

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Keep the application's record until the end of ``run``, which corrects it if the server has responded."""
        earlier, self.filed = self.filed, (recorder, ended)
        if earlier is not None:
            self._request.file_record(*earlier)

    # The response to the handshake.

    async def _accept(self, message: Message) -> None:
        """Accept the handshake, and start the reader and the server's tasks.

        If ``max_streams`` are open, the server refuses the handshake with 503 instead, and the WebSocket ends.

        Raises:
            ClientGoneError: the client left meanwhile, or the server has refused the handshake.
            ApplicationError: the subprotocol was not offered, or a field must not be set.
        """
        status, fields, connection = self._opening.accept(message.get("subprotocol"), message.get("headers", ()))
        self._state = State.ACCEPTING
        if not (self._request.gone or self._request.became_stream()):
            await self._respond_in_place(NO_STREAM_LEFT)
            self._end(_ABNORMAL)
            raise ClientGoneError(_GONE)
        try:
            with self._noticing_gone():
                self._stream = await self._request.take(status, fields)
        finally:
            if self._state is State.ACCEPTING:
                self._state = State.CONNECTING  # It failed: the application may refuse the handshake instead.
        if self._state is State.CLOSED:  # The client left meanwhile.
            raise ClientGoneError(_GONE)
        # No wait from here on: with OPEN the reader and the pings are started, so the end is always found.
        self._ws, self._state = connection, State.OPEN
        self._nursery.start_soon(self._read, self._stream)
        if self._server.config.websocket_ping_interval is not None:
            self._nursery.start_soon(self._ping, self._server.config.websocket_ping_interval)
        if self._draining:
            self._nursery.start_soon(self._go_away)

    def _begin_denial(self, message: Message) -> None:
        """Keep the head of the response that refuses the handshake (ASGI's ``websocket.http.response.start``)."""
        status = message["status"]
        # A 2xx would accept the handshake of HTTP/2 (RFC 8441 section 5).
        if status not in STATUS_LINES or (self._opening.key is None and status < 300):
            raise ApplicationError(f"the application cannot refuse the WebSocket with the status {status!r}")
        self._denial = status, in_lower_case(message.get("headers", ()))
        self._state = State.REFUSING

    async def _send_denial(self, message: Message) -> None:
        """Send a part of the content of that response, with its head before the first part."""
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        denial, self._denial = self._denial, None  # Taken before the wait: the head must not be started twice.
        if denial is not None and not more:
            await self._refuse_whole(*denial, body)
            return
        with self._noticing_gone():
            if denial is not None:
                await self._request.start(*denial)
            await self._request.send(body)
            if not more:
                await self._request.finish()
                self._end_refused()

    async def _refuse_whole(self, status: int, fields: list[Field], body: bytes) -> None:
        """Refuse the handshake with a whole response."""
        self._state = State.REFUSING
        with self._noticing_gone():
            if not self._request.respond(status, fields, body):
                await self._request.drained()
        self._end_refused()

    async def _respond_for_application(self) -> None:
        """Respond with 500 for an application that ended without a response; cut one that it has begun."""
        if self._request.can_respond:
            await self._respond_in_place(_CRASHED)
        elif not self._request.response_complete:
            self._request.cut("the application ended before its response did")

    async def _respond_in_place(self, error_response: ErrorResponse) -> None:
        """Send an error response to the handshake in the application's place."""
        # Noted before it is sent: if the sending is cancelled, the record still names this response.
        self.server_response = ServerResponse(error_response, self.request_id)
        self.server_response = await send_error_response(self._server, self._request, self.server_response)

    def _hand_record_over(self) -> None:
        """Hand over the one access record: the application's, corrected if the server responded; else the server's."""
        filed, self.filed = self.filed, None
        if self.server_response is None:
            if filed is not None:
                self._request.file_record(*filed)
        elif filed is not None:
            recorder, ended = filed
            self._request.file_record(recorder, corrected(ended, self.server_response))
            self._server.count_rejected(self.server_response.error_response)
        else:
            record_rejected(self._server, self._request, self.server_response)

    # Sending.

    async def _send_message(self, message: Message) -> None:
        """Send a message. A large one is compressed in fragments, with a checkpoint after each.

        Raises:
            ClientGoneError: the WebSocket was closed meanwhile.
            ApplicationError: the message has neither text nor bytes.
        """
        content = message.get("bytes")
        if content is None:
            content = message.get("text")
        if not isinstance(content, Content):
            raise ApplicationError("the application sent a message that is neither text nor bytes")
        try:
            async with self._messages:
                if self._opening.deflate is not None and len(content) > _FRAGMENT:
                    await self._send_fragments(content)
                else:
                    await self._send_event(_message_event(content))
        except LocalProtocolError as error:  # A close frame was sent while this message waited for a lock.
            raise ClientGoneError(_GONE) from error

    async def _send_fragments(self, content: Content) -> None:
        """Send a message in fragments. Shielded: the next message would continue an incomplete one."""
        size = len(content)
        with trio.CancelScope(shield=True):
            for start in range(0, size, _FRAGMENT):
                if self._is_closed:
                    raise ClientGoneError(_GONE)
                end = start + _FRAGMENT
                await self._send_event(_message_event(content[start:end], finished=end >= size))
                await trio.lowlevel.checkpoint()

    async def _close(self, message: Message) -> None:
        """Send the application's close frame. The client has ``cancel_timeout`` to send its own.

        Raises:
            ClientGoneError: the WebSocket was closed meanwhile, or the client has gone.
            ApplicationError: the code or the reason cannot be sent.
        """
        close = _close_event(message)
        async with self._messages, self._writing:
            try:
                data = self._ws.send(close)
            except LocalProtocolError as error:  # A close frame was sent while this one waited for a lock.
                raise ClientGoneError(_GONE) from error
            self._closed_by_application = True  # Before the wait: a cancel in the write does not undo the close.
            await self._write(data)
        self._nursery.start_soon(self._end_without_close_frame)

    async def _end_without_close_frame(self) -> None:
        """End the WebSocket if the client does not send its close frame within ``cancel_timeout``."""
        await trio.sleep(self._server.limits.cancel_timeout)
        self._end(_ABNORMAL)

    async def _send_close(self, code: int, reason: str | None = None) -> None:
        """Send a close frame for the server, unless one was sent or the client has gone. Shielded, with a deadline."""
        with (
            suppress(LocalProtocolError, ClientGoneError),
            trio.CancelScope(shield=True, deadline=self._server.write_deadline()),
        ):
            async with self._messages:
                await self._send_event(CloseConnection(code=code, reason=reason))

    async def _send_event(self, event: Event) -> None:
        """Encode ``event`` and send it.

        Raises:
            LocalProtocolError: a close frame was sent before.
            ClientGoneError: the client has gone, or does not read.
        """
        async with self._writing:
            await self._write(self._ws.send(event))

    async def _write(self, data: bytes) -> None:
        """Send bytes. The caller has held ``_writing`` since wsproto encoded them.

        Raises:
            ClientGoneError: the client has gone, or does not read. The WebSocket has ended then.
        """
        assert self._stream is not None
        with self._noticing_gone():
            await self._stream.send_all(data)

    @contextmanager
    def _noticing_gone(self) -> Iterator[None]:
        """End the WebSocket if the block raises ``ClientGoneError``, which is raised again."""
        try:
            yield
        except ClientGoneError:
            self._end(_ABNORMAL)
            raise

    async def _ping(self, interval: float) -> None:
        """Send a ping every ``interval`` seconds until the WebSocket closes."""
        with suppress(LocalProtocolError, ClientGoneError):
            while self._state is State.OPEN:
                await self._send_event(Ping())
                await trio.sleep(interval)

    # Reading.

    async def _read(self, stream: ByteStream) -> None:
        """Receive and act on bytes until the WebSocket ends; close it with 1008 if the client is too slow."""
        try:
            while self._state is State.OPEN:
                began = trio.current_time()
                with trio.CancelScope(deadline=began + self._read_timeout()) as scope:
                    data = await stream.receive_some()
                if scope.cancelled_caught:
                    reason = "a message was too slow" if self._frames.awaited else "no response to a ping"
                    await self._send_close(_TOO_SLOW, reason)
                    self._end(_TOO_SLOW)
                    return
                if self._frames.awaited:
                    self._message_clock.waited(trio.current_time() - began)
                if not data:
                    self._end(_ABNORMAL)
                else:
                    await self._unpack(data)
        except (ClientGoneError, trio.ClosedResourceError):
            # The client does not read, or the WebSocket ended while a message waited for its place in the queue.
            self._end(_ABNORMAL)

    def _read_timeout(self) -> float:
        """Seconds for the next bytes.

        Within a frame or message, its ``BodyClock`` and ``body_timeout`` apply. Between messages, a client that is
        pinged must send something within the interval plus ``body_timeout``; another one may be silent for ever.
        """
        silence = self._server.limits.body_timeout
        if self._frames.awaited:
            return min(silence, self._message_clock.left(self._frames.received))
        pings = self._server.config.websocket_ping_interval
        return math.inf if pings is None else pings + silence

    async def _unpack(self, data: bytes) -> None:
        """Feed received bytes to wsproto in pieces, and act on the events.

        Raises:
            ClientGoneError: a control frame could not be sent.
            trio.ClosedResourceError: the WebSocket ended while a message waited for its place in the queue.
        """
        size = _PIECE if self._opening.deflate is None else _COMPRESSED_PIECE
        for start in range(0, len(data), size):
            if start:
                await trio.lowlevel.checkpoint()  # Pongs and empty fragments cause no other wait.
            if self._over.is_set():
                return
            piece = data[start : start + size]
            completed = self._frames.completed
            self._frames.feed(piece)
            if self._frames.completed != completed:
                # A message was completed in this piece: the incomplete one behind it gets a new clock.
                self._message_clock = BodyClock(self._server.limits)
            self._ws.receive_data(piece)
            for event in self._ws.events():
                await self._take_event(event)
                if self._over.is_set():
                    return

    async def _take_event(self, event: Event) -> None:
        """Act on one event of wsproto; raises as ``_unpack``."""
        if isinstance(event, TextMessage | BytesMessage):
            if not self._incoming.take(event):
                self._end(_TOO_BIG)
                await self._send_close(_TOO_BIG)
            elif event.message_finished:
                # Waits while the queue is full: an application that does not read holds back its own client alone.
                await self._queue_in.send(self._incoming.complete())
        elif isinstance(event, Ping):
            await self._answer(event.response())
        elif isinstance(event, CloseConnection):
            if self._ws.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
                # wsproto reports a protocol error of the client as a close, without a change of its state.
                self._end(int(event.code), event.reason or "")
                await self._send_close(int(event.code))
                return
            self._client_closed = True
            if self._ws.state is ConnectionState.REMOTE_CLOSING:
                await self._answer(event.response())
            self._end(int(event.code), event.reason or "")

    async def _answer(self, event: Event) -> None:
        """Send a pong or a close frame, unless the server's close frame was sent before."""
        with suppress(LocalProtocolError):
            await self._send_event(event)

    # The end.

    def _end(self, code: int, reason: str = "", *, cancels: bool = True) -> None:
        """Move to CLOSED, and notify or (``cancels``) cancel the application; see the module. Does nothing twice."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._disconnect.update(code=code, reason=reason)
        self.gone = not self._closed_by_application
        self._over.set()
        self._queue_in.close()
        if not cancels:
            return
        # A listener gets the disconnect and may end in order. Without one, only a cancel reaches the application.
        if self._listeners:
            self._scope.deadline = trio.current_time() + self._server.limits.cancel_timeout
        else:
            self._scope.cancel(reason=self.end_reason)

    def _end_refused(self) -> None:
        """End the WebSocket after the whole response that refuses it. The application is not cancelled."""
        self._closed_by_application = True
        self._end(_ABNORMAL, cancels=False)

    def _client_gone(self) -> None:
        """The callback of ``on_gone``."""
        self._end(_ABNORMAL)

    def drain(self, until: float) -> None:
        """Close with 1001 (going away) now, or right after the accept. ``until`` has no effect."""
        self._draining = True
        if self._state is State.OPEN:
            self._nursery.start_soon(self._go_away)

    async def _go_away(self) -> None:
        """Send the close frame of a drain, and end the WebSocket."""
        await self._send_close(_GOING_AWAY, _DRAINS)
        if self._state is State.OPEN:
            self.end_reason = _DRAINS
        self._end(_GOING_AWAY)

    async def _linger(self, stream: ByteStream) -> None:
        """End the sending half, and read on for a moment if the client may be sending.

        Otherwise the close of a socket with unread bytes would send a RST, and the client would lose the last frame.
        """
        await stream.send_eof()
        left = 0 if self._client_closed else _LINGER_MAX
        with trio.move_on_after(_LINGER_S):
            while left > 0 and (data := await stream.receive_some()):
                left -= len(data)


class _IncomingMessage:
    """A message from the client, joined from its parts. At most ``size_max`` bytes or characters."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._parts: StringIO | BytesIO | None = None

    def take(self, event: TextMessage | BytesMessage) -> bool:
        """Add a part. Return False if the message is too long with it."""
        self._size += len(event.data)
        if self._size > self._size_max:
            return False
        if self._parts is None:
            self._parts = StringIO() if isinstance(event, TextMessage) else BytesIO()
        self._parts.write(event.data)  # type: ignore[arg-type]  # a message is of one kind
        return True

    def complete(self) -> Message:
        """The complete message as ASGI's ``websocket.receive``. The next part begins another message."""
        parts, self._parts, self._size = self._parts, None, 0
        assert parts is not None, "a part has been taken"
        text = parts.getvalue() if isinstance(parts, StringIO) else None
        content = parts.getvalue() if isinstance(parts, BytesIO) else None
        return {"type": "websocket.receive", "bytes": content, "text": text}


def _message_event(content: Content, *, finished: bool = True) -> TextMessage | BytesMessage:
    """The event of wsproto that sends a message, or a fragment of one."""
    if isinstance(content, str):
        return TextMessage(content, message_finished=finished)
    return BytesMessage(bytes(content), message_finished=finished)


def _close_event(message: Message) -> CloseConnection:
    """The event of wsproto for the application's close frame.

    Raises:
        ApplicationError: the code is not a number that a close frame may have, or the reason is no text.
    """
    code, reason = message.get("code", _NORMAL), message.get("reason")
    if not isinstance(code, int) or not (code in _DEFINED_CODES or code in _FREE_CODES):
        raise ApplicationError(f"the application closed the WebSocket with the code {code!r}, which cannot be sent")
    if not isinstance(reason, str | None):
        raise ApplicationError("the application closed the WebSocket with a reason that is not text")
    return CloseConnection(code=code, reason=reason)


def _nothing() -> None:
    """Do nothing at the first wait: ``_serve`` has set ``on_gone`` before."""
