"""One HTTP request through Quart, in a nursery of its own.

Quart makes one per request (``Umbel.asgi_http_class``). It refuses paths that two parsers read differently, answers
probes, and leaves the rest to Quart's dispatch.

* A client that leaves cancels the request, with reason ``client-gone``; nothing more is sent.
* Whatever ends it, one ``RequestEnded`` is filed, after everything else of the request has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, InternalServerError

from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...core.model import RequestFacts
from ..probes import probe
from ..request.client_origin import origin_in
from ..request.paths import check_path, check_query, merged_path, raw_path
from ..request_context import SCOPE_KEY, RequestContext
from ..request_end import DISCARD_MAX, end_by, record_of
from ..response.problems import from_http_exception, from_request_error
from ..response.reply import Reply, redirect_reply
from ..response.sending import AnyResponse, deliver
from .asgi_request import AsgiRequest, Send
from .quart_context import request_of

if TYPE_CHECKING:
    from hypercorn.typing import HTTPScope
    from werkzeug.routing import MapAdapter

    from ..application import GatewayApplication
    from .quart_body import UmbelRequest


def _endpoints_at(adapter: MapAdapter, path: str) -> Iterator[str]:
    """The endpoints that a path has, by whatever method."""
    for method in adapter.allowed_methods(path):
        with suppress(HTTPException):
            yield adapter.match(path, method)[0]


class QuartRequest(TrioASGIHTTPConnection):
    """A request that Quart dispatches."""

    app: GatewayApplication

    def __init__(self, app: GatewayApplication, scope: HTTPScope) -> None:
        context = app.gateway_context
        origin = origin_in(scope, context.proxies)
        facts = RequestFacts(
            *origin.identify(),
            scope["method"],
            scope["path"],
            "",
            trio.current_time(),
        )
        self.ctx = RequestContext(facts, origin, context.serving.recorder, scope["query_string"])
        self.ctx.bind()
        self._given_scope = scope
        # A copy, as the scope belongs to the server (the specification says: "copy it before passing it on").
        super().__init__(app, cast("HTTPScope", {**origin.rewritten(scope), SCOPE_KEY: self.ctx}))
        self._send: Send
        self._request: UmbelRequest | None = None

    async def __call__(self, receive: Any, send: Any) -> None:
        """Run the request to its end. Cancelled from outside (a server that stops), it is cut off there."""
        app, scope = self.app, self._given_scope
        self._send = send
        limits, max_body = app.gateway_context.serving.limits, app.config["MAX_CONTENT_LENGTH"]
        self._inbound = AsgiRequest(scope, receive, send, limits=limits, max_body=max_body)
        self._inbound.discard_max = DISCARD_MAX
        self.ctx.inbound = self._inbound
        await self._inbound.serve(self._run)

    async def _run(self) -> None:
        app, ctx = self.app, self.ctx
        counts = app.gateway_context.counts
        counts.in_flight += 1
        counts.total += 1
        try:
            async with trio.open_nursery() as nursery:
                ctx.nursery = nursery
                self._inbound.on_gone(ctx.cancel)
                await self._deliver(await self._answer())
                nursery.cancel_scope.cancel(reason="answered")
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
            await end_by(error, ctx, self._answer_500, testing=app.testing)
        finally:
            counts.in_flight -= 1
            self._note_route()
            await self._let_go()
            self._inbound.file_record(ctx.recorder, record_of(ctx))

    async def _answer_500(self) -> None:
        await self._deliver(from_http_exception(InternalServerError(), self.ctx.facts.request_id))

    async def _deliver(self, response: AnyResponse | Reply) -> None:
        await deliver(self.ctx, response, self.app.config["RESPONSE_TIMEOUT"], self._says_krakend)

    def _note_route(self) -> None:
        """Say in the facts which of Quart's routes it was, where no view has."""
        facts = self.ctx.facts
        rule = self._request.url_rule if self._request is not None else None
        if not facts.route and rule is not None:
            self.ctx.routed(rule.rule, facts.deadline)

    async def _let_go(self) -> None:
        """Leave nothing that only the garbage collector could free: it holds up all requests in flight."""
        request, self._request = self._request, None  # It holds this object.
        if request is None:
            return
        await request.body.detach()  # The request context may hold the body, too.
        if (error := request.routing_exception) is not None:
            # Their frames hold the request, which holds the exception.
            error.__traceback__ = error.__context__ = None

    def _says_krakend(self) -> bool:
        endpoints = self.app.krakend_endpoints
        rule = self._request.url_rule if self._request is not None else None
        if rule is not None or not endpoints:
            return rule is not None and rule.endpoint in endpoints
        if self.ctx.facts.route:
            return False  # A probe.
        # Of a path that no route has, whoever expects KrakenD expects its answer.
        at_path = set(_endpoints_at(self.app.url_map.bind(""), self.scope["path"]))
        return not at_path or not at_path.isdisjoint(endpoints)

    async def _answer(self) -> AnyResponse | Reply:
        facts = self.ctx.facts
        raw, query = raw_path(self.scope["path"], self.scope.get("raw_path")), self.scope["query_string"]
        try:
            check_path(raw)
            check_query(query)
        except RequestError as error:
            self.ctx.kind, self.ctx.detail = Kind.BAD_REQUEST, error.detail
            return from_request_error(error, facts.request_id)
        if (merged := merged_path(raw)) is not None:
            return redirect_reply(merged + b"?" + query if query else merged)
        self._request = request = request_of(self, self.ctx, self._send)
        serving = self.app.gateway_context.serving
        if (response := probe(serving, self.app.url_map, request, self.ctx)) is not None:
            return response
        try:
            return await self.app.handle_request(request)
        except HTTPException as error:
            # Quart raises these before its own handling begins: a Host header that is no host name, for one.
            return from_http_exception(error, facts.request_id)
