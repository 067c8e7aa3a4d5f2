"""One WebSocket through ASGI: the rules for its path, its origin, and exactly one record at its end.

Quart makes one per WebSocket (``Umbel.asgi_websocket_class``). What is said over it is Quart's affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from quart_trio.asgi import TrioASGIWebsocketConnection

from ..errors import RequestError
from ..events import RequestEnded
from ..kinds import Kind
from ..model import RequestFacts
from ..problem import CONTENT_TYPE, Problem
from . import crashes, ids
from .forwarded import origin_of
from .paths import check_path, check_query, raw_path

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope

    from .app import Umbel

_SWITCHED = 101
_REFUSED = 403
_INTERNAL_ERROR = 1011


class WebsocketConnection(TrioASGIWebsocketConnection):
    """The life of one WebSocket, from its handshake to its closing. Its record bears the handshake's status."""

    app: Umbel

    def __init__(self, app: Umbel, scope: WebsocketScope) -> None:
        client = scope.get("client")
        version, scheme = scope.get("http_version", "1.1"), scope["scheme"]
        self._origin = origin_of(
            client[0] if client else None,
            scope["headers"],
            app.trusted_proxies,
            http_version=version,
            scheme="https" if scheme == "wss" else "http",
        )
        self._facts = RequestFacts(
            ids.request_id(self._origin.claimed(b"x-request-id")),
            ids.trace(self._origin.said.get(b"traceparent"), self._origin.said.get(b"tracestate")),
            "GET",
            scope["path"],
            "",
            trio.current_time(),
        )
        super().__init__(app, cast("WebsocketScope", {**scope, "headers": self._origin.headers}))
        self._status: int | None = None
        self._bytes_sent = 0
        self._kind: Kind | None = None
        self._detail = ""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve it to its end. Cancelled from outside, it is cut off there."""

        async def noted(message: Any) -> None:
            self._note(message)
            await send(message)

        try:
            try:
                check_path(raw_path(self.scope))
                check_query(self.scope["query_string"])
            except RequestError as error:
                self._kind, self._detail = Kind.BAD_REQUEST, error.detail
                await self._refuse(error, noted)
            else:
                await self._serve(receive, noted)
        finally:
            self.app.recorder.record(self._record())

    async def _serve(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await super().__call__(receive, send)
        except BaseException as error:
            crash, rest = crashes.split(error)
            if crash is not None:
                self._kind, self._detail = Kind.INTERNAL, "an exception nobody handled"
                crashes.note(self.app.recorder, "websocket.crashed", crash, self._facts)
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
        request_id = self._facts.request_id
        body = Problem(error.status, error.detail, error.title or "", request_id=request_id).encode()
        fields = {
            "content-type": CONTENT_TYPE,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-request-id": request_id,
        }
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    def _note(self, message: Any) -> None:
        """What the record says of a message that is being sent."""
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
        kind = self._kind
        if self._status is None and kind is None:
            kind = Kind.CLIENT_GONE
        scheme = "https" if self.scope["scheme"] == "wss" else "http"
        status = self._status if self._status is not None else 499
        now = trio.current_time()
        return RequestEnded(
            self._facts, status, now, self._bytes_sent, None, kind, self._origin.client, scheme, self._detail
        )
