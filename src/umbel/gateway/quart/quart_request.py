"""One HTTP request that Quart dispatches, in a nursery of its own.

Quart makes one ``QuartRequest`` per request (``Umbel.asgi_http_class``). It refuses ambiguous paths, answers probes
and ``OPTIONS *``, and gives other requests to Quart's dispatch.

* If the client leaves, the nursery is cancelled with the reason "client-gone".
* The access record is filed in every case, after everything else of the request has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, InternalServerError

from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...core.model import RequestFacts
from ..browsers.browser_fields import PreflightFields
from ..browsers.preflight import is_preflight, preflight_rules, rules_at
from ..operation.probes import probe
from ..request.client_origin import origin_in
from ..request.paths import (
    AMBIGUOUS,
    check_authority,
    check_path,
    check_query,
    merged_path,
    raw_path,
    scope_in_origin_form,
)
from ..request_context import SCOPE_KEY, RequestContext
from ..request_end import DISCARD_MAX, end_by, record_of, send_copies
from ..response.problems import from_http_exception, from_request_error
from ..response.reply import Reply, redirect_reply
from ..response.sending import AnyResponse, deliver
from ..routing.empty_segments import EMPTY_SEGMENTS, belongs_to_another_route
from ..routing.encoded_slashes import holds_encoded_slash, keeps_slashes, path_to_match
from .asgi_request import AsgiRequest, Send
from .quart_context import request_of

if TYPE_CHECKING:
    from hypercorn.typing import HTTPScope
    from werkzeug.routing import MapAdapter

    from ..application import GatewayApplication
    from ..routing.url_map import UmbelMap
    from .quart_body import UmbelRequest


def _endpoints_at(adapter: MapAdapter, path: str) -> Iterator[str]:
    """The endpoints of a path with any method."""
    for method in adapter.allowed_methods(path):
        with suppress(HTTPException):
            yield adapter.match(path, method)[0]


class QuartRequest(TrioASGIHTTPConnection):
    """One HTTP request that Quart dispatches, from its head to its access record; see the module."""

    app: GatewayApplication

    def __init__(self, app: GatewayApplication, scope: HTTPScope) -> None:
        context = app.gateway_context
        origin = origin_in(scope, context.proxies)
        facts = RequestFacts(
            *origin.identify(context.head_bound),
            scope["method"],
            scope["path"],
            "",
            trio.current_time(),
        )
        query = context.visible_query(scope["query_string"])
        self.ctx = RequestContext(facts, origin, context.serving, query)
        self.ctx.compression = context.compression
        self.ctx.bind()
        self._given_scope = scope
        # A copy, because the scope belongs to the server (ASGI: "copy it before passing it on").
        own = {**origin.rewritten(scope_in_origin_form(scope)), "query_string": query, SCOPE_KEY: self.ctx}
        super().__init__(app, cast("HTTPScope", own))
        self._send: Send
        self._request: UmbelRequest | None = None
        self.ctx.browser_fields = context.browsers.default

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answer the request and file its access record. After a cancel the response may be incomplete."""
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
                response = await self._answer()
                self._note_route()  # Before the response: the record of a stream's start has the route.
                await self._deliver(response)
                nursery.cancel_scope.cancel(reason="answered")
        except BaseException as error:  # noqa: BLE001 - ``end_by`` raises what must propagate
            await end_by(error, ctx, self._answer_500, testing=app.testing)
        finally:
            counts.in_flight -= 1
            self._note_route()
            await self._let_go()
            self._inbound.file_record(ctx.recorder, record_of(ctx))
            if ctx.copies:
                send_copies(ctx)

    @property
    def _adapter(self) -> MapAdapter:
        return cast("UmbelMap", self.app.url_map).adapter_for_host(self.ctx.origin.host)

    @property
    def _path(self) -> str:
        """The decoded path below the path at which a server mounts the application, for ``_adapter``.

        Encoded slashes separate no segments in it (``path_to_match``), also where the path is refused for them.
        """
        raw, root = raw_path(self.scope["path"], self.scope.get("raw_path")), self.scope.get("root_path", "")
        if not root and holds_encoded_slash(raw):
            return path_to_match(raw)
        return self.scope["path"].removeprefix(root)

    @property
    def _kept(self) -> Collection[str]:
        """The endpoints that keep encoded slashes. None below a ``root_path``: their paths are not matched raw."""
        return () if self.scope.get("root_path") else cast("UmbelMap", self.app.url_map).keeps_slashes

    def _check_path(self, raw: bytes) -> None:
        """Check the raw path. Encoded slashes are allowed if the route of the request keeps them.

        Raises:
            RequestError: 400, as ``check_path``; or the path has empty segments, and belongs to another route without.
        """
        kept = self._kept
        given = self._given_scope
        check_authority(raw_path(given["path"], given.get("raw_path")), given["headers"])
        check_path(raw, slashes=bool(kept))
        if (
            kept
            and holds_encoded_slash(raw)
            and not keeps_slashes(self._adapter, self._path, self.ctx.facts.method, kept)
        ):
            raise RequestError(400, AMBIGUOUS)
        # A path that begins with several slashes is redirected.
        if b"//" in raw[1:] and belongs_to_another_route(self._adapter, self._path, self.ctx.facts.method):
            raise RequestError(400, EMPTY_SEGMENTS)

    async def _answer_500(self) -> None:
        await self._deliver(from_http_exception(InternalServerError(), self.ctx.facts.request_id))

    async def _deliver(self, response: AnyResponse | Reply) -> None:
        ctx, browsers = self.ctx, self.app.gateway_context.browsers
        if browsers.has_overrides and not isinstance(ctx.browser_fields, PreflightFields):
            # The path decides, and not only Quart's match: a 405 or a redirect has the fields of the path's routes.
            ctx.browser_fields = rules_at(browsers, self._adapter, self._path, ctx.facts.method).browser_fields
        await deliver(self.ctx, response, self.app.config["RESPONSE_TIMEOUT"], self._says_krakend)

    def _note_route(self) -> None:
        """Add the rule of Quart's route to the facts, unless a view has added its route."""
        facts = self.ctx.facts
        rule = self._request.url_rule if self._request is not None else None
        if not facts.route and rule is not None:
            self.ctx.routed(rule.rule, facts.deadline)

    async def _let_go(self) -> None:
        """End what the view has left open, detach the body, and break reference cycles.

        A run of the garbage collector, which would free cycles, blocks all requests.
        """
        at_end, self.ctx.at_end = self.ctx.at_end, None
        if at_end is not None:  # A hook may have replaced the response, or raised, so that its body was never entered.
            await at_end()
        request, self._request = self._request, None  # Quart's request holds this object.
        if request is None:
            return
        await request.body.detach()  # A background task may still hold the body.
        if (error := request.routing_exception) is not None:
            # The frames of the traceback hold the request, which holds the exception.
            error.__traceback__ = error.__context__ = None

    def _says_krakend(self) -> bool:
        endpoints = self.app.krakend_endpoints
        rule = self._request.url_rule if self._request is not None else None
        if rule is not None or not endpoints:
            return rule is not None and rule.endpoint in endpoints
        if self.ctx.facts.route:
            return False  # A probe.
        # No route matched. The field is sent if the path has no route at all, or one with ``krakend_compat``.
        at_path = set(_endpoints_at(self._adapter, self._path))
        return not at_path or not at_path.isdisjoint(endpoints)

    def _preflight(self) -> Reply | None:
        """The response to a preflight; None for another request, or without CORS rules for its path."""
        ctx = self.ctx
        asked = ctx.origin.fields.by_name
        if not is_preflight(ctx.facts.method, asked):
            return None
        rules = preflight_rules(self.app.gateway_context.browsers, self._adapter, self._path, asked)
        if rules is None:
            return None
        if rules.rule:
            ctx.routed(rules.rule, ctx.facts.deadline)
        ctx.browser_fields = rules.browser_fields
        return Reply(204, [], b"")

    async def _answer(self) -> AnyResponse | Reply:
        facts = self.ctx.facts
        raw, query = raw_path(self.scope["path"], self.scope.get("raw_path")), self._given_scope["query_string"]
        try:
            self.app.gateway_context.check_admission(self._given_scope)
            cast("UmbelMap", self.app.url_map).check_origin(self.ctx.origin)
            if (preflight := self._preflight()) is not None:
                return preflight
            if raw == b"*" and not query and facts.method == "OPTIONS":
                return Reply(HTTPStatus.NO_CONTENT, [], b"")  # RFC 9110 section 9.3.7: the server as a whole.
            self._check_path(raw)
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
        if serving.admit_by_limits is not None:
            try:
                serving.admit_by_limits(self.ctx, {})
            except RequestError as error:
                self.ctx.detail = error.detail
                return from_request_error(error, facts.request_id)
        try:
            return await self.app.handle_request(request)
        except HTTPException as error:
            # Quart raises some errors before its own error handling begins, for example for an invalid Host.
            return from_http_exception(error, facts.request_id)
