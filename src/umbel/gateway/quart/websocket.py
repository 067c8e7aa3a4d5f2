"""One WebSocket through ASGI: the rules for its path, its origin, and exactly one record at its end.

Quart makes one per WebSocket (``Umbel.asgi_websocket_class``). What is said over it is Quart's affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from quart_trio.asgi import TrioASGIWebsocketConnection

from ...core.errors import RequestError
from ...core.events import RequestEnded
from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError
from ...core.model import RequestFacts
from ...core.problem import CONTENT_TYPE, Problem
from ...net.exception_groups import split_crash
from ...server.response.access_record import RECORD
from .. import crashes
from ..request.client_origin import origin_in
from ..request.paths import check_path, check_query, merged_path, raw_path
from ..request_context import SCOPE_KEY, RequestContext
from .asgi_request import file_record

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope

    from ..application import GatewayApplication

_SWITCHED = 101
_REFUSED = 403
_INTERNAL_ERROR = 1011


class WebsocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket, from its handshake to its closing. Its record bears the handshake's status."""

    app: GatewayApplication

    def __init__(self, app: GatewayApplication, scope: WebsocketScope) -> None:
        context = app.gateway_context
        origin = origin_in(scope, context.proxies)
        facts = RequestFacts(
            *origin.identify(),
            "GET",
            scope["path"],
            "",
            trio.current_time(),
        )
        self.ctx = RequestContext(facts, origin, context.serving.recorder)
        self.ctx.bind()
        super().__init__(app, cast("WebsocketScope", {**origin.rewritten(scope), SCOPE_KEY: self.ctx}))
        self._status: int | None = None
        self._bytes_sent = 0

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve it to its end. Cancelled from outside, it is cut off there."""

        scope = trio.CancelScope()

        async def observed_send(message: Any) -> None:
            self._observe(message)
            try:
                await send(message)
            except ClientGoneError:
                # What serves it ends for that reason, and Quart hears of no exception.
                scope.cancel(reason=str(Kind.CLIENT_GONE))
                await trio.lowlevel.checkpoint()
                raise

        try:
            try:
                raw = raw_path(self.scope["path"], self.scope.get("raw_path"))
                check_path(raw)
                if merged_path(raw) is not None:  # No client of a WebSocket follows a redirect.
                    raise RequestError(400, "The path begins with more than one slash.")
                check_query(self.scope["query_string"])
            except RequestError as error:
                self.ctx.kind, self.ctx.detail = Kind.BAD_REQUEST, error.detail
                await self._refuse(error, observed_send)
            else:
                with scope:
                    await self._serve(receive, observed_send)
        finally:
            server = (self.scope.get("extensions") or {}).get(RECORD)
            file_record(server, self.ctx.recorder, self._record())

    async def handle_messages(  # type: ignore[override]  # as in Quart-Trio
        self, nursery: trio.Nursery, receive: Any
    ) -> None:
        """Quart-Trio's: bring messages to the view, and cancel it at the end with the reason.

        An empty message of bytes comes as such, and not as None.
        """
        server = (self.scope.get("extensions") or {}).get(RECORD)

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                # Now, because Quart-Trio gives no reason.
                nursery.cancel_scope.cancel(reason=getattr(server, "end_reason", str(Kind.CLIENT_GONE)))
            elif message.get("bytes") == b"":
                return {**message, "text": b""}  # Quart-Trio takes the text where there are no bytes.
            return message

        await super().handle_messages(nursery, heard)

    async def _serve(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await super().__call__(receive, send)
        except BaseException as error:
            crash, rest = split_crash(error)
            if crash is not None:
                self.ctx.kind, self.ctx.detail = Kind.INTERNAL, "an exception nobody handled"
                crashes.record(self.ctx.recorder, "websocket.crashed", crash, self.ctx.facts)
            if rest is not None or self.app.testing:
                # Quart's test client shows its user the exception.
                raise
            if self._status == _SWITCHED and not self._closed:
                await send({"type": "websocket.close", "code": _INTERNAL_ERROR, "reason": ""})
            elif self._status is None:
                await self._refuse(RequestError(500, "The request failed inside the gateway."), send)

    async def _refuse(self, error: RequestError, send: Any) -> None:
        """Answer the handshake with a problem document, where the server can (ASGI: ``websocket.http.response``)."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _INTERNAL_ERROR, "reason": ""})
            return
        request_id = self.ctx.facts.request_id
        body = Problem(error.status, error.detail, error.title or "", request_id=request_id).encode()
        fields = {
            "content-type": CONTENT_TYPE,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-request-id": request_id,
        }
        headers = [(name.encode(), value.encode()) for name, value in (*fields.items(), *error.fields)]
        await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    def _observe(self, message: Any) -> None:
        """Keep what the record says of a message that is being sent."""
        match message["type"]:
            case "websocket.accept":
                self._status = _SWITCHED
            case "websocket.http.response.start":
                self._status = message["status"]
            case "websocket.http.response.body":
                self._bytes_sent += len(message["body"])
            case "websocket.close" if self._status is None:
                self._status = _REFUSED
            case "websocket.send":
                data = message.get("bytes")
                self._bytes_sent += len(data if data is not None else message["text"].encode())

    def _record(self) -> RequestEnded:
        ctx, status = self.ctx, self._status
        if status is None and ctx.kind is None:
            ctx.kind = Kind.CLIENT_GONE
        return RequestEnded(
            ctx.facts,
            status if status is not None else 499,
            trio.current_time(),
            self._bytes_sent,
            None,
            ctx.kind,
            ctx.origin.client,
            ctx.origin.scheme,
            ctx.detail,
        )
