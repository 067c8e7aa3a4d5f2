"""One HTTP request that comes as an ASGI scope with its ``receive`` and ``send``, as an ``InboundRequest``.

For servers that speak ASGI, and for what stands between a server and the application (a middleware, Quart).

**The client's leaving.** Elsewhere than under our own server a task (``serve``) receives from the beginning and reads
on after the end of the body and while the answer is sent: Hypercorn's queue is short, and a server that cannot put its
last message into it never ends the request. The disconnect that Hypercorn posts while the last part of the answer is
being sent means nothing. (To take it for the client's leaving would cancel the very task that is restarting the idle
timer or closing the connection.)

Our own server (``extensions["umbel.cancels"]``) cancels an application whose client leaves while nobody receives. So
where its very ``receive`` was given, nothing is received before somebody wants the body: what nobody reads stays with
the client, and needs no place among the uploads.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import trio
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout
from werkzeug.sansio.utils import get_content_length

from ...composition.engine import CLIENT_GONE
from ...core.inbound import AnsweredByServerError, ByteStream, ClientGoneError, Field
from ...server.asgi import CANCELS, Canceller
from ...server.limits.client_clocks import BodyClock
from ...server.own_context import run_in_own_context
from ...server.response.error_response import ERROR_RESPONSE
from ..request.paths import raw_path
from ..response.reply import BODILESS

if TYPE_CHECKING:
    from ...core.events import Recorder, RequestEnded
    from ...server.limits.server_limits import Limits

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_ONE_SEND_MAX = 64 * 1024
"""A body up to this goes out in one send with the end of the message. A larger one can wait for the client, and a
disconnect in the meantime must not look like the server's own (``_finishing``)."""
_SECURE = ("https", "wss")


def target_of(scope: Scope) -> bytes:
    """The request's target. A server that does not say it raw (ASGI leaves that open) is taken at its decoded word."""
    target, query = raw_path(scope["path"], scope.get("raw_path")), scope["query_string"]
    return target + b"?" + query if query else target


class AsgiRequest:
    """See the module, and ``InboundRequest``. ASGI has no way to ``take`` a connection and none for trailers here."""

    __slots__ = (
        "_answered_by_server",
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
        "_scope",
        "_sending",
        "_server",
        "bytes_sent",
        "can_respond",
        "method",
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
        """``limits`` bound the time of the body where the server does not; ``max_body`` bytes of it are held at most
        while nobody reads them."""
        self._scope = scope
        self._asgi_receive = receive
        self._asgi_send = send
        self.target = target_of(scope)
        self.method: str = scope["method"]
        self.started = trio.current_time()
        extensions = scope.get("extensions")
        server: Canceller | None = extensions.get(CANCELS) if extensions else None
        self._server = server
        # Whoever stands between may listen in our place, and the server would notify that listener alone.
        self.watches = server is None or server.receive != receive
        """Whether ``serve`` must watch for the client's leaving."""
        self._limits = limits
        self._max_body = math.inf if max_body is None else max_body
        self._body_size: float | None = None
        self._clock: BodyClock | None = None
        # What has come.
        self._held = bytearray()
        self._received = 0
        self._complete = False
        self._gone = False
        self._answered_by_server: AnsweredByServerError | None = None
        self._news: trio.Event | None = None
        self._callback: Callable[[], object] | None = None
        # The answer.
        self.status = 0
        self.bytes_sent = 0
        self.response_complete = False
        self.can_respond = True
        self._fields: Sequence[Field] = ()
        self._rest = b""
        self._finishing = False
        """The last part is with the server, so a disconnect says nothing about the client any more."""
        self._sending: trio.CancelScope | None = None
        self._crash_recorded = False
        self._apart = trio.CancelScope()

    # The head.

    @property
    def fields(self) -> tuple[Field, ...]:
        """See ``InboundRequest``."""
        headers = self._scope["headers"]
        if self._server is not None:
            return tuple(headers)
        return tuple((bytes(name).lower(), bytes(value)) for name, value in headers)

    @property
    def version(self) -> str:
        """See ``InboundRequest``."""
        version: str = self._scope.get("http_version", "1.1")
        return version

    @property
    def scheme(self) -> str:
        """See ``InboundRequest``."""
        return "https" if self._scope.get("scheme") in _SECURE else "http"

    @property
    def peer(self) -> tuple[str, int] | None:
        """See ``InboundRequest``."""
        client = self._scope.get("client")
        return (client[0], client[1]) if client else None

    @property
    def local(self) -> tuple[str, int | None] | None:
        """See ``InboundRequest``."""
        server = self._scope.get("server")
        return (server[0], server[1]) if server else None

    @property
    def client_certificate(self) -> bytes | None:
        """See ``InboundRequest``; known where the server has ASGI's TLS extension."""
        tls = (self._scope.get("extensions") or {}).get("tls") or {}
        chain = tls.get("client_cert_chain")
        return ssl.PEM_cert_to_DER_cert(next(iter(chain))) if chain and not tls.get("client_cert_error") else None

    @property
    def content_length(self) -> int | None:
        """See ``InboundRequest``."""
        fields = {name: value.decode("latin-1") for name, value in self.fields}
        coding = fields.get(b"transfer-encoding")
        length = get_content_length(fields.get(b"content-length"), coding)
        return 0 if length is None and coding is None and self.version.startswith("1") else length

    websocket = False
    """ASGI gives a WebSocket a scope of its own."""
    takes_trailers = False

    # The body.

    @property
    def body_complete(self) -> bool:
        """See ``InboundRequest``."""
        return self._complete and not self._held

    async def receive(self) -> bytes:
        """See ``InboundRequest``.

        Raises:
            RequestTimeout: the body comes too slowly, where the server has no bound of its own.
            RequestEntityTooLarge: it is larger than what may be held.
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
                    # The answer is whole, and somebody still reads the body: nothing more comes.
                    await trio.sleep_forever()
                self._take_message(message)
                if self._answered_by_server is not None or self._gone:
                    self._raise_gone()
        data = bytes(self._held)
        self._held.clear()
        return data

    async def _wait_for_news(self) -> None:
        """Wait for what the task brings. Only this time counts against the client."""
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
        length = self.content_length
        if length:
            return length
        return self._max_body if self._body_size is None else min(self._body_size, self._max_body)

    def _take_message(self, message: Mapping[str, Any]) -> None:
        """Take a message of the server's."""
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
        if self._received > self._max_body:
            self._held.clear()
        else:
            self._held += data
        self._complete = not message.get("more_body", False)

    def take_at_most(self, size: int) -> None:
        """See ``InboundRequest``."""
        self._body_size = size
        if self._server is not None:
            self._server.take_at_most(size)

    @property
    def discard_max(self) -> int:
        """See ``InboundRequest``; 0 where the server does not say."""
        return 0 if self._server is None else self._server.discard_max

    @discard_max.setter
    def discard_max(self, size: int) -> None:
        if self._server is not None:
            self._server.discard_max = size

    # The client's leaving.

    async def serve(self, handle: Callable[[], Awaitable[None]]) -> None:
        """Run ``handle`` to its end, and watch for the client's leaving where the server does not."""
        failed: Exception | None = None
        try:
            if not self.watches:
                await handle()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                try:
                    await handle()
                except Exception as error:  # noqa: BLE001 - raised below, as itself and not in a group
                    failed = error
                nursery.cancel_scope.cancel(reason="answered")
        finally:
            self._callback = None  # Whoever it belongs to holds this request.
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # Its traceback holds this frame.

    async def _watch(self) -> None:
        while not self._gone:
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
        """See ``InboundRequest``."""
        return self._gone or (not self.watches and self._server is not None and self._server.gone)

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """See ``InboundRequest``. Our own server cancels the application instead."""
        self._callback = callback
        if callback is not None and self.gone:
            callback()

    def _raise_gone(self) -> NoReturn:
        answered, self._answered_by_server = self._answered_by_server, None
        if answered is not None:
            try:
                raise answered
            finally:
                del answered  # Its traceback holds this frame.
        raise ClientGoneError("the client has gone")

    # The answer.

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """See ``InboundRequest``. Nothing is sent before ``drained``."""
        self._give(status, fields)
        self._rest = body
        return False

    async def drained(self) -> None:
        """See ``InboundRequest``."""
        body, self._rest = self._rest, b""
        if self._is_mute:
            body = b""
        elif len(body) > _ONE_SEND_MAX:
            await self.send(body)
            body = b""
        await self._end(body)

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """See ``InboundRequest``."""
        self._give(status, fields)

    async def send(self, data: bytes) -> None:
        """See ``InboundRequest``."""
        if self._is_mute:
            await trio.lowlevel.checkpoint()
            return
        await self._send_head()
        await self._say({"type": "http.response.body", "body": data, "more_body": True})
        self.bytes_sent += len(data)

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """See ``InboundRequest``. There is no place for trailers: ASGI has it said with the head."""
        await self._end(b"" if self._is_mute else data)

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """See ``InboundRequest``. ASGI can say 103 alone, with Link, and not every server takes it.

        Raises:
            RuntimeError: it is another one.
        """
        links = [value for name, value in fields if name == b"link"]
        if status != 103 or len(links) != len(fields):
            raise RuntimeError(
                f"through ASGI no interim response can be sent but 103 with Link fields, and not {status}"
            )
        if "http.response.early_hint" in (self._scope.get("extensions") or {}):
            await self._say({"type": "http.response.early_hint", "links": links})

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """See ``InboundRequest``.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("through ASGI nobody can take the bytes of a connection; a WebSocket has a scope of its own")

    def cut(self, reason: str) -> None:
        """See ``InboundRequest``. A server cuts an answer that its application leaves unfinished."""
        self._gone = True

    @property
    def _is_mute(self) -> bool:
        return self.method == "HEAD" or self.status in BODILESS

    def _give(self, status: int, fields: Sequence[Field]) -> None:
        if self.gone:
            raise ClientGoneError("the client has gone")
        if not self.can_respond:
            raise RuntimeError("an answer has been begun already")
        self.status, self._fields = status, fields

    async def _send_head(self) -> None:
        if self.can_respond:
            await self._say({"type": "http.response.start", "status": self.status, "headers": self._fields})
            self.can_respond = False

    async def _end(self, data: bytes) -> None:
        if self.bytes_sent and self.watches:
            # A send to a client that has gone raises nothing: the server posts its disconnect and returns. Whoever
            # watches for it gets a turn now, while it still means the client.
            await trio.lowlevel.checkpoint()
        await self._send_head()
        self._finishing = True
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

    # Tasks, and the record.

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """See ``InboundRequest``. The task may be that of a caller which makes several requests in it."""
        with self._apart:
            await run_in_own_context(work, begins_to_wait)

    def cancel_apart(self, reason: str) -> None:
        """See ``InboundRequest``."""
        self._apart.cancel(reason=reason)

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """See ``InboundRequest``. Recorded at once where the server takes no records."""
        file_record(self._server, recorder, ended)

    @property
    def crash_recorded(self) -> bool:
        """See ``InboundRequest``."""
        return self._crash_recorded if self._server is None else self._server.crash_recorded

    @crash_recorded.setter
    def crash_recorded(self, recorded: bool) -> None:
        self._crash_recorded = recorded
        if self._server is not None:
            self._server.crash_recorded = recorded


def file_record(server: object, recorder: Recorder, ended: RequestEnded) -> None:
    """Have a record written: by our own server, which knows what the client got, and under any other at once."""
    file = getattr(server, "file", None)
    if file is None:
        recorder.record(ended)
    else:
        file(recorder, ended)
