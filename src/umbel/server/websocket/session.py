"""A WebSocket session: the protocol between an ASGI application and the bytes of a connection or of a stream.

Theory
------
Three parties act on a WebSocket:

- the *application* calls ``receive`` and ``send``, by ``InboundRequest.run_apart``;
- the *reader* (``_read``) runs from the accept on. It alone reads bytes, feeds them to wsproto, answers pings and the
  client's close, and puts messages into the queue of the application;
- the *server* sends pings, drains, limits the wait for the answer to a close, and hears that the client has gone.

**States.** ``_state`` says how far the handshake is, and whether the WebSocket has ended::

    CONNECTING --websocket.accept--> ACCEPTING --> OPEN ----> CLOSED
        |                                                       ^
        '--websocket.close, websocket.http.response--> REFUSING-'

The application alone moves it to ACCEPTING, REFUSING and OPEN, because the response to the handshake is the
application's; an accept that fails moves it back to CONNECTING. Within OPEN the closing handshake is wsproto's state,
and stands nowhere else: messages can be sent while that is OPEN, and no more once either side has sent a close frame.
Each party may send the server's close frame. wsproto raises ``LocalProtocolError`` for a second one, which is left out.

**The end.** Each party may bring about CLOSED, but by ``_end`` alone. It does not wait, and does nothing the second
time, so the end is reached once, with the code of whoever came first. What belongs to the end is done there: the
disconnect gets its code, the queue is closed behind the messages in it, and the application is cancelled, or is
notified where it listens. The end is always reached, because ``run`` calls ``_end`` behind everything else.

**Whole messages.** wsproto makes the bytes and the stream takes them under ``_writing``, with no wait between: both
have the same order, on which compression depends. ``ByteStream.send_all`` sends all of it also where its caller is
cancelled, because half a frame would spoil the rest. ``_messages`` is held for a whole message: between the fragments
of one there may be pings and pongs, but no other message. Whoever needs both locks takes ``_messages`` first.

**The client's leaving.** Until the accept ``on_gone`` reports it. Afterwards the reader finds the end of what the
client has sent behind everything that came before it, and ``on_gone`` reports a reset.
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
from ..asgi import ASGI
from ..limits.client_clocks import BodyClock
from ..limits.fairness import BoundedCalls
from ..phase import Phase
from ..response.access_record import RECORD, RecordedRequest, corrected
from ..response.error_response import ErrorResponse, ServerResponse
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

# RFC 6455 section 7.4.1.
_NORMAL, _GOING_AWAY, _ABNORMAL, _TOO_SLOW, _TOO_BIG, _INTERNAL_ERROR = 1000, 1001, 1006, 1008, 1009, 1011
_PIECE, _COMPRESSED_PIECE = 4096, 1024
"""Bytes that are unpacked at once; compressed ones may become a thousand times as many."""
_FRAGMENT = 32 * 1024
"""Bytes or characters that are compressed at once: of text zlib takes 13 MB a second."""
_LINGER_S, _LINGER_MAX = 1.0, 2**20
"""Seconds and bytes that are read after the server's close frame, where the client has not answered it."""

_CRASHED = ErrorResponse(500, "The WebSocket failed inside the application.", Kind.INTERNAL)
_GONE = "the client has gone, or the WebSocket is closed"
_DRAINS = "the server is going away"


class State(Enum):
    """How far a WebSocket is; see the module."""

    CONNECTING = auto()
    ACCEPTING = auto()
    REFUSING = auto()
    OPEN = auto()
    CLOSED = auto()


class WebSocketSession(BoundedCalls, RecordedRequest):
    """A WebSocket from its handshake, which has been read, to its end."""

    def __init__(self, server: ServerState, app: Any, request: InboundRequest, opening: OpeningHandshake) -> None:
        self._server = server
        self._app = app
        self._request = request
        self._opening = opening
        self._state = State.CONNECTING
        self._over = trio.Event()
        """Set with CLOSED."""
        self._closed_by_application = False
        """Whether the application has closed or refused it, so that what it sends then is its mistake."""
        self._client_closed = False
        """Whether the client has sent its close frame, behind which it sends nothing (RFC 6455 section 5.5.1)."""
        self._crashed = False
        self._draining = False
        self.end_reason = str(Kind.CLIENT_GONE)
        """Why the application is cancelled at the end, by us or by a framework that we notify."""
        self._scope = trio.CancelScope()
        """Around the application."""
        self._listeners = 0
        """Tasks that wait in ``receive``, and so will hear of the end."""
        self._disconnect: Message = {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
        self._queue_in, self._queue_out = trio.open_memory_channel[Message](server.config.max_app_queue_size)
        self._queue_in.send_nowait({"type": "websocket.connect"})
        self._denial: tuple[int, list[Field]] | None = None
        """The head of the application's denial response, until its body begins."""
        self._stream: ByteStream | None = None
        """Of an accepted WebSocket; so is ``_ws``."""
        self._ws: Connection
        self._writing = trio.Lock()
        self._messages = trio.Lock()
        self._frames = FrameTracker()
        self._message_clock = BodyClock(server.limits)
        """Of the frame or message that is incomplete."""
        self._incoming = _IncomingMessage(server.config.websocket_max_message_size)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Serve it until both sides are done. What the application raises ends here, and is logged once."""
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
        """Run the application, and what runs beside it."""
        async with trio.open_nursery() as self._nursery:
            self._server.open.add(self)
            self._request.on_gone(self._client_gone)
            try:
                if self._server.phase.value >= Phase.DRAINING:
                    self.drain(trio.current_time())
                await self._request.run_apart(self._call_application(), _nothing)
                if self._state is State.OPEN:
                    await self._send_close(_INTERNAL_ERROR if self._crashed else _NORMAL)
                    with trio.move_on_after(self._server.limits.cancel_timeout):
                        await self._over.wait()
            finally:
                self._server.open.discard(self)
                self._request.on_gone(None)
            self._nursery.cancel_scope.cancel(reason="the application has ended")

    async def _call_application(self) -> None:
        try:
            with self._scope:
                await self._app(self._asgi_scope(), self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
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
            "extensions": {"websocket.http.response": {}, RECORD: self},
        }

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: the connect, messages, and disconnects from then on."""
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
        """ASGI's ``send``.

        Raises:
            ClientGoneError: the WebSocket is closed, by the client or by a server that drains.
            ApplicationError: the application itself has closed or refused it, or the message breaks a rule.
            ValueError: a field of the response to the handshake is malformed.
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
                await self._refuse_whole(403, [(b"content-length", b"0")], b"")
            case State.CONNECTING, "websocket.http.response.start":
                self._begin_denial(message)
            case State.REFUSING, "websocket.http.response.body":
                await self._send_denial(message)
            case State.OPEN, "websocket.send":
                await self._send_message(message)
            case State.OPEN, "websocket.close":
                await self._close(message)
            case _, kind:
                raise ApplicationError(f"the application sent {kind!r} out of turn")

    @property
    def _is_closed(self) -> bool:
        """Whether nothing can be sent. One side has closed, though the other may not have heard of it yet."""
        return self._state is State.CLOSED or (self._state is State.OPEN and self._ws.state is not ConnectionState.OPEN)

    def stop_endless(self, reason: str) -> None:
        """Cancel the application."""
        self._server.note_endless(reason)
        self._scope.cancel(reason=reason)

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Take the application's record; it is handed over at the end, because the server may still refuse."""
        earlier, self.filed = self.filed, (recorder, ended)
        if earlier is not None:
            self._request.file_record(*earlier)

    # The response to the handshake.

    async def _accept(self, message: Message) -> None:
        status, fields, connection = self._opening.accept(message.get("subprotocol"), message.get("headers", ()))
        self._state = State.ACCEPTING
        try:
            with self._noticing_gone():
                self._stream = await self._request.take(status, fields)
        finally:
            if self._state is State.ACCEPTING:
                self._state = State.CONNECTING
        if self._state is State.CLOSED:  # The client left meanwhile.
            raise ClientGoneError(_GONE)
        self._ws, self._state = connection, State.OPEN
        self._nursery.start_soon(self._read, self._stream)
        if self._server.config.websocket_ping_interval is not None:
            self._nursery.start_soon(self._ping, self._server.config.websocket_ping_interval)
        if self._draining:
            self._nursery.start_soon(self._go_away)

    def _begin_denial(self, message: Message) -> None:
        status = message["status"]
        # A 2xx would accept the handshake of HTTP/2 (RFC 8441 section 5).
        if status not in STATUS_LINES or (self._opening.key is None and status < 300):
            raise ApplicationError(f"the application refused the WebSocket with the status {status!r}")
        self._denial = status, in_lower_case(message.get("headers", ()))
        self._state = State.REFUSING

    async def _send_denial(self, message: Message) -> None:
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        denial, self._denial = self._denial, None
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
        self._state = State.REFUSING
        with self._noticing_gone():
            if not self._request.respond(status, fields, body):
                await self._request.drained()
        self._end_refused()

    async def _respond_for_application(self) -> None:
        """The application has ended, and has not answered the handshake, or not to the end."""
        if self._request.can_respond:
            self.server_response = ServerResponse(_CRASHED, self.request_id)
            self.server_response = await send_error_response(self._server, self._request, self.server_response)
        elif not self._request.response_complete:
            self._request.cut("the application ended in the middle of its answer")

    def _hand_record_over(self) -> None:
        """Have the one record written: the application's, or the server's."""
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
        """Send a message; one that is compressed and large in fragments, with a checkpoint after each.

        Raises:
            ClientGoneError: the WebSocket was closed meanwhile.
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
        except LocalProtocolError as error:  # It was closed while this message waited.
            raise ClientGoneError(_GONE) from error

    async def _send_fragments(self, content: Content) -> None:
        """Send a message in fragments, also where the application is cancelled: half of it would spoil the next."""
        size = len(content)
        with trio.CancelScope(shield=True):
            for start in range(0, size, _FRAGMENT):
                if self._is_closed:
                    raise ClientGoneError(_GONE)
                end = start + _FRAGMENT
                await self._send_event(_message_event(content[start:end], finished=end >= size))
                await trio.lowlevel.checkpoint()

    async def _close(self, message: Message) -> None:
        """Close for the application; its client has ``cancel_timeout`` to answer, whoever waits for that."""
        close = CloseConnection(code=int(message.get("code", _NORMAL)), reason=message.get("reason"))
        async with self._messages, self._writing:
            try:
                data = self._ws.send(close)
            except LocalProtocolError as error:  # It was closed while this close waited.
                raise ClientGoneError(_GONE) from error
            self._closed_by_application = True
            await self._write(data)
        self._nursery.start_soon(self._end_without_close_frame)

    async def _end_without_close_frame(self) -> None:
        await trio.sleep(self._server.limits.cancel_timeout)
        self._end(_ABNORMAL)

    async def _send_close(self, code: int, reason: str | None = None) -> None:
        """Close from our side, unless that has been done or nobody is there; waits for as long as a write may take."""
        with (
            suppress(LocalProtocolError, ClientGoneError),
            trio.CancelScope(shield=True, deadline=self._server.write_deadline()),
        ):
            async with self._messages:
                await self._send_event(CloseConnection(code=code, reason=reason))

    async def _send_event(self, event: Event) -> None:
        """Send what wsproto makes of ``event``.

        Raises:
            LocalProtocolError: it cannot be sent any more.
            ClientGoneError: the client has gone, or does not read.
        """
        async with self._writing:
            await self._write(self._ws.send(event))

    async def _write(self, data: bytes) -> None:
        """Send bytes. ``_writing`` must be held since they were made."""
        assert self._stream is not None
        with self._noticing_gone():
            await self._stream.send_all(data)

    @contextmanager
    def _noticing_gone(self) -> Iterator[None]:
        try:
            yield
        except ClientGoneError:
            self._end(_ABNORMAL)
            raise

    async def _ping(self, interval: float) -> None:
        with suppress(LocalProtocolError, ClientGoneError):  # One side has closed, or the client has gone.
            while self._state is State.OPEN:
                await self._send_event(Ping())
                await trio.sleep(interval)

    # Reading.

    async def _read(self, stream: ByteStream) -> None:
        """Read until the end."""
        try:
            while self._state is State.OPEN:
                began = trio.current_time()
                with trio.CancelScope(deadline=began + self._read_timeout()) as scope:
                    data = await stream.receive_some()
                if scope.cancelled_caught:
                    reason = "a message was too slow" if self._frames.awaited else "no answer to a ping"
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
            # The client does not read, or the queue was closed while the application did not.
            self._end(_ABNORMAL)

    def _read_timeout(self) -> float:
        """Seconds for the next bytes. A WebSocket may be silent for ever, but not in the middle of a message.

        Where it is pinged, it may not leave the pings unanswered either.
        """
        silence = self._server.limits.body_timeout
        if self._frames.awaited:
            return min(silence, self._message_clock.left(self._frames.received))
        pings = self._server.config.websocket_ping_interval
        return math.inf if pings is None else pings + silence

    async def _unpack(self, data: bytes) -> None:
        """Act on what came, a piece at a time.

        Raises:
            ClientGoneError: a response could not be sent.
            trio.ClosedResourceError: the WebSocket ended while a message waited for its place in the queue.
        """
        size = _PIECE if self._opening.deflate is None else _COMPRESSED_PIECE
        for start in range(0, len(data), size):
            if start:
                await trio.lowlevel.checkpoint()  # Frames without a message (pongs, empty fragments) wait for nobody.
            if self._over.is_set():
                return
            piece = data[start : start + size]
            completed = self._frames.completed
            self._frames.feed(piece)
            if self._frames.completed != completed:
                # What is incomplete behind a message that is complete has a time of its own.
                self._message_clock = BodyClock(self._server.limits)
            self._ws.receive_data(piece)
            for event in self._ws.events():
                await self._take_event(event)
                if self._over.is_set():
                    return

    async def _take_event(self, event: Event) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            if not self._incoming.take(event):
                self._end(_TOO_BIG)
                await self._send_close(_TOO_BIG)
            elif event.message_finished:
                # In its turn: an application that does not read holds up its client, and only that.
                await self._queue_in.send(self._incoming.complete())
        elif isinstance(event, Ping):
            await self._answer(event.response())
        elif isinstance(event, CloseConnection):
            if self._ws.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
                # It was no close frame of the client's, but bytes that are no frame.
                self._end(int(event.code), event.reason or "")
                await self._send_close(int(event.code))
                return
            self._client_closed = True
            if self._ws.state is ConnectionState.REMOTE_CLOSING:
                await self._answer(event.response())
            self._end(int(event.code), event.reason or "")

    async def _answer(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # Our close frame was sent already.
            await self._send_event(event)

    # The end.

    def _end(self, code: int, reason: str = "", *, cancels: bool = True) -> None:
        """End the WebSocket: an application that waits in ``receive`` gets the disconnect, any other is cancelled."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._disconnect.update(code=code, reason=reason)
        self.gone = not self._closed_by_application
        self._over.set()
        self._queue_in.close()
        if not cancels:
            return
        if self._listeners:
            self._scope.deadline = trio.current_time() + self._server.limits.cancel_timeout
        else:
            self._scope.cancel(reason=self.end_reason)

    def _end_refused(self) -> None:
        """The application has given its whole denial response; like one that has answered a request, it may work on."""
        self._closed_by_application = True
        self._end(_ABNORMAL, cancels=False)

    def _client_gone(self) -> None:
        """The client has gone."""
        self._end(_ABNORMAL)

    def drain(self, until: float) -> None:
        """Close with 1001 as soon as it is accepted: clients that are asked to go away come back elsewhere."""
        self._draining = True
        if self._state is State.OPEN:
            self._nursery.start_soon(self._go_away)

    async def _go_away(self) -> None:
        await self._send_close(_GOING_AWAY, _DRAINS)
        if self._state is State.OPEN:
            self.end_reason = _DRAINS
        self._end(_GOING_AWAY)

    async def _linger(self, stream: ByteStream) -> None:
        """Send no more, and read on for a moment where the client may be sending: it is to read our last frame.

        (TCP answers bytes that nobody reads with a reset, which throws away what the client has not read yet.)
        """
        await stream.send_eof()
        left = 0 if self._client_closed else _LINGER_MAX
        with trio.move_on_after(_LINGER_S):
            while left > 0 and (data := await stream.receive_some()):
                left -= len(data)


class _IncomingMessage:
    """A message of the client's, put together from its frames. At most ``size_max`` bytes or characters."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._parts: StringIO | BytesIO | None = None

    def take(self, event: TextMessage | BytesMessage) -> bool:
        """Take a part; False if the message is too long with it."""
        self._size += len(event.data)
        if self._size > self._size_max:
            return False
        if self._parts is None:
            self._parts = StringIO() if isinstance(event, TextMessage) else BytesIO()
        self._parts.write(event.data)  # type: ignore[arg-type]  # a message is of one kind
        return True

    def complete(self) -> Message:
        """The message, as ASGI has it; the next part begins another one."""
        parts, self._parts, self._size = self._parts, None, 0
        assert parts is not None, "a part has been taken"
        text = parts.getvalue() if isinstance(parts, StringIO) else None
        content = parts.getvalue() if isinstance(parts, BytesIO) else None
        return {"type": "websocket.receive", "bytes": content, "text": text}


def _message_event(content: Content, *, finished: bool = True) -> TextMessage | BytesMessage:
    if isinstance(content, str):
        return TextMessage(content, message_finished=finished)
    return BytesMessage(bytes(content), message_finished=finished)


def _nothing() -> None:
    """Do nothing at the first wait: ``on_gone`` is set before the application starts."""
