"""One WebSocket: Hypercorn's ``WSStream`` between whatever carries its bytes and an application.

Used by ``h1websocket.py`` and ``h2websocket.py``, which carry it. Every byte from the client passes here before
Hypercorn sees it; what the handshake may say has been checked before that.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from hypercorn.protocol import events
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from trio_util import move_on_when
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from ...kinds import Kind
from ..clocks import BodyClock
from ..crash import apart
from ..ending import RECORD
from ..exchange import ASGI, ClientLeft
from ..fairness import BoundedCalls
from ..h2head import Fields, Head
from ..peer import Peer
from ..phase import Phase
from ..response import ApplicationError
from ..service import Service
from .frame_watch import FrameWatch
from .handshake import Opening, as_hypercorn_reads

Message = dict[str, Any]

# RFC 6455 section 7.4.1.
_NORMAL, _GOING_AWAY, _PROTOCOL_ERROR, _ABNORMAL, _TOO_SLOW, _INTERNAL_ERROR = 1000, 1001, 1002, 1006, 1008, 1011
_EARLY_MAX = 64 * 1024
"""Bytes that a client may send before the application has accepted: it should send none (RFC 6455 section 4.1)."""
_PIECE, _COMPRESSED_PIECE = 4096, 1024
"""Bytes that are unpacked at once; compressed ones may become a thousand times as many."""
_FRAGMENT = 32 * 1024
"""Bytes or characters that are compressed at once: of text zlib takes 13 MB a second."""


class Carrier(Protocol):
    """What brings a WebSocket's bytes."""

    async def receive(self) -> bytes:
        """What comes next; nothing once the client has gone."""
        ...

    async def send_head(self, status: int, headers: Fields) -> None:
        """The answer to the handshake."""
        ...

    async def send_data(self, data: bytes, *, end: bool) -> None:
        """Bytes for the client: all of them or none, also where the caller is cancelled.

        Raises:
            ClientLeft: nobody is there to take them.
        """
        ...


class WebSocket(BoundedCalls):
    """A WebSocket from its handshake to its end."""

    def __init__(self, service: Service, peer: Peer, carrier: Carrier, stream_id: int = 1) -> None:
        self.answered = False
        """Whether the handshake has its answer."""
        self._rejecting = False
        """Whether that is no: it goes out as a whole, also to a client that has closed its half."""
        self.client_closed = False
        """Whether the client has sent its close frame, after which it sends nothing (RFC 6455 section 5.5.1)."""
        self._service = service
        self._carrier = carrier
        self._stream_id = stream_id
        self._accepted = trio.Event()
        self._over = trio.Event()
        """The client has closed, or has gone."""
        self._closed_by_application = False
        self._frames = FrameWatch()
        self._message_clock = BodyClock(service.limits)
        """Of the frame or message that is incomplete."""
        self._fragments = trio.Lock()
        """Held while a message goes out in fragments: no other message may begin between them."""
        self._listeners = 0
        self._scope = trio.CancelScope()
        self._disconnect: Message = {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
        self._inbox_in, self._inbox_out = trio.open_memory_channel[Message](service.config.max_app_queue_size)
        self._fields: Fields
        self._opening: Opening
        self._to_hypercorn: Callable[[Any], Awaitable[None]]
        self._call: tuple[Any, Callable[[Any], Awaitable[None]]] | None = None
        self._nursery: trio.Nursery
        make: Any = WSStream  # its types want Hypercorn's own objects; ours have what it uses of them
        ends = (peer.secure, peer.client, peer.server)
        context = WorkerContext(None)
        self._hypercorn: Any = make(service.app, service.config, context, self, *ends, self._on_event, stream_id)

    async def run(self, head: Head, opening: Opening, version: str) -> None:
        """Serve it until both sides are done. Whatever the application raises ends here, and is logged once."""
        self._fields, self._opening = head.fields, opening
        state: Any = self._service.state
        fields = as_hypercorn_reads(head.fields)
        request = events.Request(self._stream_id, fields, version, head.method, head.path, state)
        async with trio.open_nursery() as self._nursery:
            await self._hypercorn.handle(request)  # calls ``spawn_app``, or refuses
            if self._call is not None:
                self._nursery.start_soon(self._read)
                self._service.open.add(self)
                try:
                    if self._service.phase.value >= Phase.DRAINING:
                        self.drain(trio.current_time())
                    await self._call_application(*self._call)
                finally:
                    self._service.open.discard(self)
            self._nursery.cancel_scope.cancel(reason="the application has ended")

    async def _call_application(self, scope: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        code = _NORMAL
        self._to_hypercorn = send
        try:
            with self._scope:
                await self._service.app(scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
            crash, rest = apart(error)
            if crash is not None:
                code = _INTERNAL_ERROR
                self._service.application_failed("websocket", crash, gone=self.gone)
            if rest is not None:
                raise rest from None
        if self._accepted.is_set() and not self._over.is_set():
            await self._say(CloseConnection(code=code))
            with trio.move_on_after(self._service.limits.cancel_timeout):
                await self._over.wait()

    # What Hypercorn's stream asks of a task group.

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Message], Awaitable[None]]:
        """Keep what the application is to be called with; ``run`` calls it."""
        scope["asgi"] = ASGI  # Hypercorn's says less than ours does: a send after the closing raises.
        scope["headers"], scope["subprotocols"] = self._fields, self._opening.subprotocols
        scope["extensions"][RECORD] = self._carrier
        self._hypercorn.handshake = self._opening
        self._call = scope, send
        return self._put

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run what Hypercorn wants beside: its pings."""
        self._nursery.start_soon(function, *arguments)

    async def _put(self, message: Message) -> None:
        """A message to the application, in its turn: one that does not read holds up its client, and only that."""
        if message["type"] != "websocket.disconnect":
            await self._inbox_in.send(message)

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: the connect, messages, and disconnects from then on."""
        await self.count_call()
        self._listeners += 1
        try:
            return await self._inbox_out.receive()
        except trio.EndOfChannel:
            await self.count_late_call()
            return self._disconnect
        finally:
            self._listeners -= 1

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            ClientLeft: the WebSocket is closed, by the client or by a server that drains.
            ApplicationError: the application itself has closed or refused it.
        """
        await self.count_call()
        if self._over.is_set() or self._is_closed:
            await self.count_late_call()
            if not self._closed_by_application:
                self.gone = True
                raise ClientLeft("the client has gone, or the WebSocket is closed")
            raise ApplicationError(f"the application sent {message['type']!r} after it had closed the WebSocket")
        self._closed_by_application |= message["type"] == "websocket.close"
        if message["type"] == "websocket.send" and self._accepted.is_set():
            await self._send_message(message)
        else:
            await self._to_hypercorn(message)
        if self._rejecting and self._hypercorn.idle:
            self._closed_by_application = True
            self._inbox_in.close()  # Nothing more comes: whoever listens is told.
        elif self._closed_by_application and not self._over.is_set():
            self._nursery.start_soon(self._end_closing)

    async def _send_message(self, message: Message) -> None:
        """Send a message; one that is compressed and large in fragments, with a checkpoint after each."""
        content = message["bytes"] if message.get("bytes") is not None else message.get("text")
        if (
            self._opening.deflate is not None
            and isinstance(content, bytes | bytearray | str)
            and len(content) > _FRAGMENT
        ):
            async with self._fragments:
                await self._send_fragments(content)
        elif self._fragments.locked():
            async with self._fragments:
                await self._to_hypercorn(message)
        else:
            await self._to_hypercorn(message)

    async def _send_fragments(self, content: bytes | bytearray | str) -> None:
        """Send a message in fragments, also where the application is cancelled: half of it would spoil the next.

        Raises:
            ClientLeft: the WebSocket was closed meanwhile.
        """
        size = len(content)
        with trio.CancelScope(shield=True):
            for start in range(0, size, _FRAGMENT):
                if self._over.is_set() or self._is_closed:
                    raise ClientLeft("the client has gone, or the WebSocket is closed")
                piece, last = content[start : start + _FRAGMENT], start + _FRAGMENT >= size
                event: TextMessage | BytesMessage
                if isinstance(piece, str):
                    event = TextMessage(piece, message_finished=last)
                else:
                    event = BytesMessage(bytes(piece), message_finished=last)
                await self._carrier.send_data(self._hypercorn.connection.send(event), end=False)
                await trio.lowlevel.checkpoint()

    async def _end_closing(self) -> None:
        """The application has closed: its client has ``cancel_timeout`` to answer, whoever waits for that."""
        await trio.sleep(self._service.limits.cancel_timeout)
        self._leave(_ABNORMAL)

    @property
    def _is_closed(self) -> bool:
        """Whether nothing can be sent. One side has closed, though the other may not have heard of it yet."""
        if self._accepted.is_set():
            return self._hypercorn.connection.state is not ConnectionState.OPEN
        return self._closed_by_application

    def stop_endless(self, reason: str) -> None:
        """Cancel the application."""
        self._service.note_endless(reason)
        self._scope.cancel(reason=reason)

    # What Hypercorn makes of it.

    async def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Response):
            self.answered = True
            self._rejecting = event.status_code not in (101, 200)
            await self._carrier.send_head(event.status_code, event.headers)
            if not self._rejecting:
                # From here on we see how the client closes, which Hypercorn does not tell the application.
                self._hypercorn.connection = _Overheard(self._hypercorn.connection, self._closed)
                await self._carrier.send_data(b"", end=False)
                self._accepted.set()
        elif isinstance(event, events.Data | events.Body):
            await self._carrier.send_data(event.data, end=False)
        elif isinstance(event, events.EndBody):
            await self._carrier.send_data(b"", end=True)

    # The client's side.

    async def _read(self) -> None:
        early = b""
        async with move_on_when(self._accepted.wait):
            while len(early) < _EARLY_MAX:
                data = await self._carrier.receive()
                if not data:
                    if not self._rejecting:
                        self._leave(_ABNORMAL)
                    return
                early += data
            await trio.sleep_forever()
        try:
            await self._unpack(early)
            while not self._over.is_set():
                began = trio.current_time()
                with trio.CancelScope(deadline=began + self._patience()) as scope:
                    data = await self._carrier.receive()
                if scope.cancelled_caught:
                    reason = "a message was too slow" if self._frames.awaited else "no answer to a ping"
                    await self._say(CloseConnection(code=_TOO_SLOW, reason=reason))
                    self._leave(_TOO_SLOW)
                    return
                if self._frames.awaited:
                    self._message_clock.waited(trio.current_time() - began)
                if not data:
                    self._leave(_ABNORMAL)
                else:
                    await self._unpack(data)
        except (RemoteProtocolError, LocalProtocolError):
            await self._say(CloseConnection(code=_PROTOCOL_ERROR))
            self._leave(_PROTOCOL_ERROR)
        except ClientLeft:
            self._leave(_ABNORMAL)
        except trio.ClosedResourceError:
            pass  # The server left while the application was not reading.

    def _patience(self) -> float:
        """Seconds for the next bytes. A WebSocket may be silent for ever, but not in the middle of a message.

        Where it is pinged, it may not leave the pings unanswered either.
        """
        silence = self._service.limits.body_timeout
        if self._frames.awaited:
            return min(silence, self._message_clock.left(self._frames.received))
        pings = self._service.config.websocket_ping_interval
        return math.inf if pings is None else pings + silence

    def _follow(self, data: bytes) -> None:
        """``data`` came. What is incomplete behind a message that is complete has a time of its own."""
        completed = self._frames.completed
        self._frames.feed(data)
        if self._frames.completed != completed:
            self._message_clock = BodyClock(self._service.limits)

    async def _unpack(self, data: bytes) -> None:
        size = _PIECE if self._opening.deflate is None else _COMPRESSED_PIECE
        for start in range(0, len(data), size):
            if start:
                await trio.lowlevel.checkpoint()  # Frames without a message (pongs, empty fragments) wait for nobody.
            if self._over.is_set():
                return
            piece = data[start : start + size]
            self._follow(piece)
            await self._hypercorn.handle(events.Data(self._stream_id, piece))
            if self._over.is_set() and self._hypercorn.connection.state is ConnectionState.OPEN:
                # It was no closing of the client's, but bytes that are no frame.
                await self._say(CloseConnection(code=self._disconnect["code"]))
            code = self._hypercorn.connection.closed_with
            if code is not None and not self._closed_by_application:
                self._leave(code)  # by Hypercorn, because a message was too large

    def _closed(self, event: CloseConnection) -> None:
        self.client_closed = self._hypercorn.connection.state is not ConnectionState.OPEN
        self._disconnect.update(code=int(event.code), reason=event.reason or "")
        self._leave(int(event.code))

    def _leave(self, code: int) -> None:
        """Nobody is there any more: an application that listens is told, any other is cancelled."""
        if self._over.is_set():
            return
        self._disconnect["code"] = code
        self.gone = not self._closed_by_application
        self._over.set()
        self._hypercorn.closed = True
        self._inbox_in.close()
        if self._listeners:
            self._scope.deadline = trio.current_time() + self._service.limits.cancel_timeout
        else:
            self._scope.cancel(reason=str(Kind.CLIENT_GONE))

    @property
    def abandoned(self) -> bool:
        """Whether the client has gone."""
        return self._over.is_set()

    def left(self) -> None:
        """The carrier says that the client has gone."""
        self._leave(_ABNORMAL)

    def drain(self, until: float) -> None:
        """Called when the server drains: clients that are told to go away come back elsewhere."""
        self._nursery.start_soon(self._leave_with_the_server)

    async def _leave_with_the_server(self) -> None:
        await self._accepted.wait()
        await self._say(CloseConnection(code=_GOING_AWAY, reason="the server is going away"))
        self._leave(_GOING_AWAY)

    async def _say(self, event: CloseConnection) -> None:
        """Close from our side, unless that has been done."""
        with (
            contextlib.suppress(LocalProtocolError, ClientLeft),  # it is closed, or nobody is there to hear it
            trio.CancelScope(shield=True, deadline=self._service.write_deadline()),
        ):
            async with self._fragments:
                await self._carrier.send_data(self._hypercorn.connection.send(event), end=False)


class _Overheard:
    """A ``wsproto`` connection whose closing is overheard."""

    def __init__(self, connection: Any, closed: Callable[[CloseConnection], None]) -> None:
        self._connection = connection
        self._closed = closed
        self.closed_with: int | None = None
        """The code that our side has closed with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def send(self, event: Any) -> bytes:
        data: bytes = self._connection.send(event)
        if isinstance(event, CloseConnection):
            self.closed_with = int(event.code)
        return data

    def events(self) -> Any:
        for event in self._connection.events():
            yield event  # Hypercorn answers it, and only then is the closing complete
            if isinstance(event, CloseConnection):
                self._closed(event)
