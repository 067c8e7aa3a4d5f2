"""One WebSocket through ASGI: checks of its path, the client's origin, and its access record.

Quart makes one ``WebsocketConnection`` per WebSocket (``Umbel.asgi_websocket_class``) and gives the messages to the
view.
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
from ..operation import crashes
from ..request.client_origin import origin_in
from ..request.paths import check_authority, check_path, check_query, merged_path, raw_path
from ..request_context import SCOPE_KEY, RequestContext
from ..response.lasting import stream_began
from .asgi_request import file_record

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
    from quart.wrappers import Websocket

    from ...net.timers import Timer
    from ..application import GatewayApplication
    from ..routing.url_map import UmbelMap

_SWITCHED = 101
_REFUSED = 403
_INTERNAL_ERROR = 1011


class WebsocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket, from its handshake to its close. Its access record has the status of the handshake."""

    app: GatewayApplication

    def __init__(self, app: GatewayApplication, scope: WebsocketScope) -> None:
        context = app.gateway_context
        origin = origin_in(scope, context.proxies)
        facts = RequestFacts(
            *origin.identify(context.head_bound),
            "GET",
            scope["path"],
            "",
            trio.current_time(),
        )
        query = context.visible_query(scope["query_string"])
        self.ctx = RequestContext(facts, origin, context.serving, query)
        self.ctx.handshake = scope
        self.ctx.browser_fields = context.browsers.default
        self.ctx.bind()
        self._given_scope = scope
        """The scope with the peer's address and fields, not those that a trusted proxy reports."""
        own = {**origin.rewritten(scope), "query_string": query, SCOPE_KEY: self.ctx}
        super().__init__(app, cast("WebsocketScope", own))
        self._websocket: Websocket | None = None
        self._status: int | None = None
        self._switched_at: float | None = None
        self._start_timer: Timer | None = None
        self._bytes_sent = 0

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the WebSocket until it is closed, and file its access record. A cancel ends the WebSocket."""

        scope = trio.CancelScope()

        async def observed_send(message: Any) -> None:
            self._observe(message)
            if message["type"] == "websocket.http.response.start":
                fields = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
                fields += self.ctx.limit_fields
                self.ctx.browser_fields.add(fields, self.ctx.origin)
                message = {**message, "headers": fields}
            elif message["type"] == "websocket.accept" and self.ctx.limit_fields:
                message = {**message, "headers": [*message.get("headers", ()), *self.ctx.limit_fields]}
            try:
                await send(message)
            except ClientGoneError:
                # The view is cancelled with this reason; Quart gets a cancel and no exception.
                scope.cancel(reason=str(Kind.CLIENT_GONE))
                await trio.lowlevel.checkpoint()
                raise

        try:
            try:
                self.app.gateway_context.check_admission(self._given_scope)
                cast("UmbelMap", self.app.url_map).check_origin(self.ctx.origin)
                raw = raw_path(self.scope["path"], self.scope.get("raw_path"))
                check_authority(raw, self._given_scope["headers"])
                check_path(raw)
                if merged_path(raw) is not None:  # Clients of WebSockets do not follow redirects.
                    raise RequestError(400, "The path begins with more than one slash.")
                check_query(self.scope["query_string"])
                if (admit := self.app.gateway_context.serving.admit_by_limits) is not None:
                    admit(self.ctx, {})
            except RequestError as error:
                self.ctx.kind, self.ctx.detail = self.ctx.kind or Kind.BAD_REQUEST, error.detail
                await self._refuse(error, observed_send)
            else:
                with scope:
                    await self._serve(receive, observed_send)
        finally:
            if self._start_timer is not None:
                self._start_timer.cancel()
            server = (self.scope.get("extensions") or {}).get(RECORD)
            version = self.scope.get("http_version", "")
            file_record(server, self.ctx.recorder, self._record(), version, self.scope["headers"])

    async def handle_messages(  # type: ignore[override]  # as in Quart-Trio
        self, nursery: trio.Nursery, receive: Any
    ) -> None:
        """Give messages to the view, and cancel the view with a reason at the end.

        Overrides Quart-Trio's method, which gives no reason, and which turns an empty bytes message into None.
        """
        server = (self.scope.get("extensions") or {}).get(RECORD)

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                # Before Quart-Trio cancels, which gives no reason.
                nursery.cancel_scope.cancel(reason=getattr(server, "end_reason", str(Kind.CLIENT_GONE)))
            elif message.get("bytes") == b"":
                return {**message, "text": b""}  # Quart-Trio takes ``text`` if ``bytes`` is empty.
            return message

        await super().handle_messages(nursery, heard)

    def _create_websocket_from_scope(self, send: ASGISendCallable) -> Websocket:
        """Make Quart's object, and keep it: it has the matched route."""
        self._websocket = super()._create_websocket_from_scope(send)
        return self._websocket

    def _note_route(self) -> None:
        """Add the rule of the matched route to the facts."""
        rule = self._websocket.url_rule if self._websocket is not None else None
        if not self.ctx.facts.route and rule is not None:
            self.ctx.routed(rule.rule, self.ctx.facts.deadline)

    async def _serve(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await super().__call__(receive, send)
        except BaseException as error:
            crash, rest = split_crash(error)
            if crash is not None:
                self._note_route()
                self.ctx.kind, self.ctx.detail = Kind.INTERNAL, "an unhandled exception"
                crashes.record(self.ctx.recorder, "websocket.crashed", crash, self.ctx.facts)
            if rest is not None or self.app.testing:
                # Quart's test client expects the exception.
                raise
            if self._status == _SWITCHED and not self._closed:
                await send({"type": "websocket.close", "code": _INTERNAL_ERROR, "reason": ""})
            elif self._status is None:
                await self._refuse(RequestError(500, "The request failed inside the gateway."), send)

    async def _refuse(self, error: RequestError, send: Any) -> None:
        """Refuse the handshake: with a problem document if the server can send one, else by a close.

        ASGI's extension ``websocket.http.response`` says whether the server can.
        """
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
        """Note status and bytes of a sent message for the access record."""
        match message["type"]:
            case "websocket.accept":
                self._note_route()  # Before the timer: the record of the start has the route.
                self._status, self._switched_at = _SWITCHED, trio.current_time()
                self._start_timer = stream_began(self.ctx)
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
        self._note_route()
        self._websocket = None  # Quart's object holds this one.
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
            switched_at=self._switched_at if status == _SWITCHED else None,
            auth=ctx.auth,
            limit=ctx.limit,
        )
