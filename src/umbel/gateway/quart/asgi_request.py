"""Adapter from an ASGI scope with its ``receive`` and ``send`` to an ``InboundRequest``.

It is used under ASGI servers, and where middleware or Quart is between the server and the gateway.

**How a disconnect is noticed.** ASGI reports a client that has left only as a message of ``receive``. There are two
cases (``watches``):

- *Another server, or a replaced* ``receive``. A task (``_watch``) receives all messages during the whole request: body
  parts, which it holds for ``receive``, and the disconnect. It must go on after the end of the body, because
  Hypercorn's queue of messages is short, and Hypercorn cannot end a request whose last message does not fit.
- *Umbel's own server* (``extensions["umbel.cancels"]``) *with its own* ``receive``. This server cancels the application
  if the client leaves while nothing receives. So messages are received only when the body is read, and an unread body
  stays in the socket and takes no upload slot.

**A body that may have any size** (``take_any_size``). The task that receives all messages pauses while
``_HELD_MAX`` bytes wait for ``receive``, so memory stays bounded. A client that leaves meanwhile is noticed when the
bytes are taken. After the response the task goes on, and drops what comes.

**A disconnect at the end.** Hypercorn also sends a disconnect when the last part of the response has been given to it.
That one says nothing about the client and is ignored (``_finishing``). Otherwise it would cancel the task that closes
the connection.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import trio
from msgspec.structs import replace
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout
from werkzeug.sansio.utils import get_content_length

from ...composition.engine import CLIENT_GONE
from ...core.http.client_head import client_head
from ...core.inbound import AnsweredByServerError, ByteStream, ClientGoneError, Field
from ...server.asgi import CANCELS, Canceller
from ...server.limits.client_clocks import PIECE, BodyClock
from ...server.own_context import run_in_own_context
from ...server.response.error_response import ERROR_RESPONSE
from ..request.paths import raw_path
from ..request.tls_extension import certificate_in
from ..response.reply import BODILESS

if TYPE_CHECKING:
    from ...core.events import Recorder, RequestEnded
    from ...server.limits.server_limits import Limits

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_ONE_SEND_MAX = 64 * 1024
"""Maximum bytes of a body that is sent in the last message. Sending a larger body may wait for the client, and a
disconnect during this wait must not be ignored (``_finishing``)."""
_HELD_MAX = 64 * 1024
"""Bytes of a body that may have any size, from which on ``_watch`` waits for ``receive``."""
_SECURE = ("https", "wss")


def target_of(scope: Scope) -> bytes:
    """The raw request target of a scope. Without the optional ``raw_path``, ``path`` is percent-encoded again."""
    target, query = raw_path(scope["path"], scope.get("raw_path")), scope["query_string"]
    return target + b"?" + query if query else target


class AsgiRequest:
    """HTTP request of an ASGI server, offered as an ``InboundRequest``; see the module.

    ``take`` and trailers are not supported.

    Args:
        scope: the ASGI scope of an HTTP request.
        receive: ASGI's ``receive``.
        send: ASGI's ``send``.
        limits: bounds the time of the body, if the server is not Umbel's own.
        max_body: maximum bytes of the body; None: no maximum. With a larger body ``receive`` raises an error.
    """

    __slots__ = (
        "_answered_by_server",
        "_any_size",
        "_apart",
        "_asgi_receive",
        "_asgi_send",
        "_body_size",
        "_callback",
        "_clock",
        "_complete",
        "_crash_recorded",
        "_fields",
        "_finishing",
        "_gone",
        "_held",
        "_limits",
        "_max_body",
        "_news",
        "_received",
        "_rest",
        "_room",
        "_scope",
        "_sending",
        "_server",
        "bytes_sent",
        "can_respond",
        "method",
        "receive_max",
        "response_complete",
        "started",
        "status",
        "target",
        "watches",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        limits: Limits,
        max_body: int | None,
    ) -> None:
        self._scope = scope
        self._asgi_receive = receive
        self._asgi_send = send
        self.target = target_of(scope)
        self.method: str = scope["method"]
        self.started = trio.current_time()
        self.receive_max = PIECE
        extensions = scope.get("extensions")
        server: Canceller | None = extensions.get(CANCELS) if extensions else None
        self._server = server
        # Middleware with its own ``receive`` may receive in place of the application, and then gets the disconnect.
        self.watches = server is None or server.receive != receive
        """Whether a task must receive all messages to notice that the client leaves; see the module."""
        self._limits = limits
        self._max_body = math.inf if max_body is None else max_body
        self._body_size: float | None = None
        self._any_size = False
        self._room: trio.Event | None = None
        """Where ``_watch`` waits for ``receive`` to take the held bytes."""
        self._clock: BodyClock | None = None
        # Received.
        self._held = bytearray()
        self._received = 0
        self._complete = False
        self._gone = False
        self._answered_by_server: AnsweredByServerError | None = None
        self._news: trio.Event | None = None
        self._callback: Callable[[], object] | None = None
        # Response.
        self.status = 0
        self.bytes_sent = 0
        self.response_complete = False
        self.can_respond = True
        self._fields: Sequence[Field] = ()
        self._rest = b""
        self._finishing = False
        """Whether the last part of the response was given to the server; a disconnect is ignored from then on."""
        self._sending: trio.CancelScope | None = None
        self._crash_recorded = False
        self._apart = trio.CancelScope()

    # The head.

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header fields in order, with names in lower case."""
        headers = self._scope["headers"]
        if self._server is not None:
            return tuple(headers)
        return tuple((bytes(name).lower(), bytes(value)) for name, value in headers)

    @property
    def version(self) -> str:
        """The HTTP version: ``1.0``, ``1.1`` or ``2``; ``1.1`` if the scope has none."""
        version: str = self._scope.get("http_version", "1.1")
        return version

    @property
    def scheme(self) -> str:
        """``https`` if the scope says that the connection has TLS, else ``http``."""
        return "https" if self._scope.get("scheme") in _SECURE else "http"

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address and port; None if the scope has none, as on a Unix socket."""
        client = self._scope.get("client")
        return (client[0], client[1]) if client else None

    @property
    def local(self) -> tuple[str, int | None] | None:
        """The server's own address and port, or its path and None on a Unix socket; None if the scope has none."""
        server = self._scope.get("server")
        return (server[0], server[1]) if server else None

    @property
    def client_certificate(self) -> bytes | None:
        """The client's certificate (DER), which the TLS handshake has verified.

        None without one, or if the server does not support ASGI's TLS extension.
        """
        return certificate_in(self._scope)

    @property
    def content_length(self) -> int | None:
        """Bytes of the request body: 0 without a body, None if the length is unknown."""
        fields = {name: value.decode("latin-1") for name, value in self.fields}
        coding = fields.get(b"transfer-encoding")
        length = get_content_length(fields.get(b"content-length"), coding)
        return 0 if length is None and coding is None and self.version.startswith("1") else length

    websocket = False
    """ASGI has a separate scope type for WebSockets."""
    takes_trailers = False
    switched_at = None

    # Request body.

    @property
    def body_complete(self) -> bool:
        """Whether ``receive`` has returned the whole body, so that only ``b""`` can follow."""
        return self._complete and not self._held

    async def receive(self) -> bytes:
        """Receive the next part of the body, at least one byte; ``b""`` at its end.

        Raises:
            RequestTimeout: the body comes too slowly, and the server has no limit of its own.
            RequestEntityTooLarge: the body is larger than ``max_body``.
            AnsweredByServerError: the rest of the body cannot be read, and the server has sent an error response.
            ClientGoneError: the client left in the middle of its body.
        """
        while True:
            if self._received > self._max_body:
                raise RequestEntityTooLarge
            if self._held or self._complete:
                break
            if self.watches:
                if self._gone:
                    self._raise_gone()
                await self._wait_for_news()
            else:
                message = await self._asgi_receive()
                if message["type"] == "http.disconnect" and self._finishing:
                    # The response is complete, but a task still reads the body. It waits until it is cancelled.
                    await trio.sleep_forever()
                self._take_message(message)
                if self._answered_by_server is not None or self._gone:
                    self._raise_gone()
        data = bytes(self._held)
        self._held.clear()
        if self._any_size:
            self._make_room()
            if self._clock is not None:
                self._clock.took(len(data))
        return data

    def _make_room(self) -> None:
        """Have ``_watch`` go on."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def _wait_for_news(self) -> None:
        """Wait until ``_watch`` has received something. Only the time of these waits counts for the body's timeout."""
        if self._news is None:
            self._news = trio.Event()
        if self._server is not None:
            await self._news.wait()
            return
        if self._clock is None:
            self._clock = BodyClock(self._limits)
        began = trio.current_time()
        with trio.CancelScope(deadline=began + self._clock.left(self._most_bytes())) as scope:
            await self._news.wait()
        self._clock.waited(trio.current_time() - began)
        if scope.cancelled_caught:
            raise RequestTimeout("The body did not arrive in time.")

    def _most_bytes(self) -> float:
        if self._any_size:
            return PIECE
        length = self.content_length
        if length:
            return length
        return self._max_body if self._body_size is None else min(self._body_size, self._max_body)

    def _take_message(self, message: Mapping[str, Any]) -> None:
        """Handle a message of ASGI's ``receive``."""
        if message["type"] == "http.disconnect":
            if (answered := message.get(ERROR_RESPONSE)) is not None:
                error_response, request_id = answered
                self._answered_by_server = AnsweredByServerError(
                    error_response.status, error_response.kind, error_response.detail, request_id
                )
            self._gone = True
            return
        data = message.get("body", b"")
        self._received += len(data)
        if self._received > self._max_body or (self._any_size and self._finishing):
            self._held.clear()
        else:
            self._held += data
        self._complete = not message.get("more_body", False)

    def take_at_most(self, size: int) -> None:
        """Declare that at most ``size`` bytes will be read; the time of the body is bounded accordingly."""
        self._body_size = size
        if self._server is not None:
            self._server.take_at_most(size)

    def take_any_size(self) -> None:
        """Declare that the body is passed on; ``max_body`` does not hold then; see ``InboundRequest``."""
        self._any_size, self._max_body = True, math.inf
        if self._server is not None:
            self._server.take_any_size()

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue). False if ``_watch`` receives, or under another server.

        ASGI has no message for it: the server sends it with the first ``receive``.
        """
        return self._server is not None and not self.watches and self._server.expects_continue

    # Streams.

    def became_stream(self) -> bool:
        """Count the request as a stream; see ``InboundRequest``. Always True under another server, which has none."""
        return self._server is None or self._server.became_stream()

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called when Umbel's own server begins to drain. Another server reports no drain."""
        if self._server is not None:
            self._server.on_drain(callback)

    @property
    def discard_max(self) -> int:
        """Maximum bytes of an unread body that the server discards after the response; 0 under another server."""
        return 0 if self._server is None else self._server.discard_max

    @discard_max.setter
    def discard_max(self, size: int) -> None:
        if self._server is not None:
            self._server.discard_max = size

    # A client that leaves.

    async def serve(self, handle: Callable[[], Awaitable[None]]) -> None:
        """Run ``handle`` to its end, with the task that watches for a disconnect if one is needed.

        An exception of ``handle`` is raised as it is, not in a group.
        """
        failed: Exception | None = None
        try:
            if not self.watches:
                await handle()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                try:
                    await handle()
                except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery
                    failed = error
                nursery.cancel_scope.cancel(reason="answered")
        finally:
            self._callback = None  # The callback's object holds this request: a reference cycle.
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # Its traceback holds this frame: a reference cycle.

    async def _watch(self) -> None:
        """Receive all messages; when the client leaves, cancel the current send and call the ``on_gone`` callback."""
        while not self._gone:
            if self._any_size and len(self._held) >= _HELD_MAX and not self._finishing:
                self._room = trio.Event()
                await self._room.wait()
            message = await self._asgi_receive()
            if message["type"] == "http.disconnect" and self._finishing:
                return
            self._take_message(message)
            if self._news is not None:
                self._news.set()
                self._news = None
        if self._sending is not None:
            self._sending.cancel(reason=CLIENT_GONE)
        if self._callback is not None:
            self._callback()

    @property
    def gone(self) -> bool:
        """Whether the client has left, as far as is known."""
        return self._gone or (not self.watches and self._server is not None and self._server.gone)

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the client leaves; at once if it has left already. None: no callback.

        If ``watches`` is False, a client that leaves later causes no call: Umbel's own server cancels the application
        instead.
        """
        self._callback = callback
        if callback is not None and self.gone:
            callback()

    def _raise_gone(self) -> NoReturn:
        answered, self._answered_by_server = self._answered_by_server, None
        if answered is not None:
            try:
                raise answered
            finally:
                del answered  # Its traceback holds this frame: a reference cycle.
        raise ClientGoneError("the client has gone")

    # Response.

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Note the response for ``drained``, which sends it; the ASGI server checks fields and length. Returns False.

        Raises:
            ClientGoneError: the client has left.
            RuntimeError: a response has been begun.
        """
        self._give(status, fields)
        self._rest = body
        return False

    async def drained(self) -> None:
        """Send the response that ``respond`` noted, and return when the ASGI server has taken it.

        Raises:
            ClientGoneError: the client has left.
        """
        body, self._rest = self._rest, b""
        if self._is_mute:
            body = b""
        elif len(body) > _ONE_SEND_MAX:
            await self.send(body)
            body = b""
        await self._end(body)

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """Begin a response in parts, without sending anything yet; ``trailers`` is ignored. Raises as ``respond``."""
        self._give(status, fields)

    async def send(self, data: bytes) -> bool:
        """Send a part of the content; the ASGI server decides when to return. Return False: how long is not known.

        Raises:
            ClientGoneError: the client has left.
        """
        if self._is_mute:
            await trio.lowlevel.checkpoint()
            return False
        await self._send_head()
        await self._say({"type": "http.response.body", "body": data, "more_body": True})
        self.bytes_sent += len(data)
        return False

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """End the response with a last part; ``trailers`` are ignored.

        Raises:
            ClientGoneError: the client has left.
        """
        await self._end(b"" if self._is_mute else data)

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """Send 103 with Link fields; a server without support for it sends nothing. ASGI has no other interim response.

        100 is not sent: the server sends it with the first ``receive``.

        Raises:
            RuntimeError: another status, or another field than Link.
        """
        if status == 100:
            return
        links = [value for name, value in fields if name == b"link"]
        if status != 103 or len(links) != len(fields):
            raise RuntimeError(
                f"the only interim response that ASGI supports is 103 with Link fields; {status} cannot be sent"
            )
        if "http.response.early_hint" in (self._scope.get("extensions") or {}):
            await self._say({"type": "http.response.early_hint", "links": links})

    def inform_soon(self, status: int, fields: Sequence[Field]) -> None:
        """Send nothing: ASGI sends only in a task that waits."""

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """Not supported.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("ASGI cannot give the bytes of a connection to the application; use a WebSocket scope")

    def cut(self, reason: str) -> None:
        """Send nothing more: an ASGI server aborts a response that is left incomplete. ``reason`` is not used."""
        self._gone = True

    @property
    def _is_mute(self) -> bool:
        """Whether the response has no content."""
        return self.method == "HEAD" or self.status in BODILESS

    def _give(self, status: int, fields: Sequence[Field]) -> None:
        if self.gone:
            raise ClientGoneError("the client has gone")
        if not self.can_respond:
            raise RuntimeError("a response has been begun already")
        self.status, self._fields = status, fields

    async def _send_head(self) -> None:
        if self.can_respond:
            await self._say({"type": "http.response.start", "status": self.status, "headers": self._fields})
            self.can_respond = False

    async def _end(self, data: bytes) -> None:
        if self.bytes_sent and self.watches:
            # Sending to a client that has left raises nothing in Hypercorn, which only posts a disconnect. ``_watch``
            # must handle this disconnect before ``_finishing`` is set and disconnects are ignored.
            await trio.lowlevel.checkpoint()
        await self._send_head()
        self._finishing = True
        self._make_room()
        await self._say({"type": "http.response.body", "body": data, "more_body": False})
        self.bytes_sent += len(data)
        self.response_complete = True

    async def _say(self, message: Mapping[str, Any]) -> None:
        if self.gone:
            raise ClientGoneError("the client has gone")
        try:
            if not self.watches:
                await self._asgi_send(message)
                return
            with trio.CancelScope() as self._sending:
                await self._asgi_send(message)
        except OSError as error:
            self._gone = True
            if isinstance(error, ClientGoneError):
                raise
            raise ClientGoneError("the client has gone") from error
        sending, self._sending = self._sending, None
        if sending is not None and sending.cancelled_caught:
            raise ClientGoneError("the client has gone")

    # Foreign code, and the access record.

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """Await ``work``, which runs foreign code, with a copy of the context variables. Its exceptions propagate.

        If ``work`` waits, ``begins_to_wait()`` is called before the first wait; it must not raise.
        """
        with self._apart:
            await run_in_own_context(work, begins_to_wait)

    def cancel_apart(self, reason: str) -> None:
        """Cancel the work of ``run_apart``. The connection is the ASGI server's, and is not closed here."""
        self._apart.cancel(reason=reason)

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Have Umbel's own server complete and record ``ended``; under another server, record it at once."""
        file_record(self._server, recorder, ended, self.version, self.fields)

    @property
    def crash_recorded(self) -> bool:
        """Whether the application has recorded why its response ends in the middle; the server then records nothing."""
        return self._crash_recorded if self._server is None else self._server.crash_recorded

    @crash_recorded.setter
    def crash_recorded(self, recorded: bool) -> None:
        self._crash_recorded = recorded
        if self._server is not None:
            self._server.crash_recorded = recorded


def file_record(
    server: object, recorder: Recorder, ended: RequestEnded, version: str, fields: Iterable[tuple[bytes, bytes]]
) -> None:
    """Give an access record to ``server`` if it is Umbel's own, which completes it, or else to ``recorder`` at once.

    ``version`` and ``fields`` are those of the request.
    """
    file = getattr(server, "file", None)
    if file is None:
        if getattr(recorder, "takes_heads", False):
            ended = replace(ended, head=client_head(version, fields))
        recorder.record(ended)
    else:
        file(recorder, ended)
