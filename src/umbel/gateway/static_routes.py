"""Static routes: routes of the configuration that are answered without a composition (``respond``, ``redirect``).

The response of a ``respond`` is made at load. A request adds its X-Request-Id, and a 304 replaces the response if the
request's If-None-Match names its ETag. The response of a ``redirect`` differs in its Location only.

A ``StaticView`` is called either by Quart's dispatch (``view``) or by a ``StaticCycle``, as a ``RouteView`` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ..composition.answer.cache_control import cache_control_without_parts, forbids_shared, is_targeted
from ..composition.plan.plan import request_context
from ..composition.static_response import RedirectTemplate
from ..composition.text.template import BadValueError
from ..core.errors import RequestError
from ..core.failure_kinds import Kind
from ..core.http.header_field import raw_value
from ..core.inbound import ResponseFields
from .browsers.compression import CodedContent
from .configured_view import ConfiguredView
from .request.inputs import InputRules
from .request.query import QueryRules
from .request_context import RequestContext
from .response.reply import BODILESS, Reply
from .response.route_fields import RouteFields
from .response.validators import NO_STORE, check_if_match, etag_of, not_modified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..composition.plan.plan import Plan
    from ..composition.static_response import StaticResponse
    from .context import GatewayContext
    from .request.request_fields import Field

_SAFE = frozenset({"GET", "HEAD"})


class StaticView(ConfiguredView):
    """Answers the requests for one static route. Holds no data of a request.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
        static: ``plan.static``.
    """

    def __init__(self, context: GatewayContext, plan: Plan, static: StaticResponse | RedirectTemplate) -> None:
        route = plan.route
        ConfiguredView.__init__(self, context, plan, InputRules(QueryRules(route.query_params)))
        self._redirect = static if isinstance(static, RedirectTemplate) else None
        self._reads_query = bool(route.query_params)
        self.delay = 0.0 if isinstance(static, RedirectTemplate) else static.delay
        self._status, self._content, self._etag = static.status, b"", ""
        fields: list[Field] = []
        caching = cache_control_without_parts(plan.cache_control, personal=plan.private)
        if plan.vary:
            fields += [(b"vary", ", ".join(name.title() for name in plan.vary).encode())]
        if caching is not None:
            fields += [(b"cache-control", raw_value(caching) or NO_STORE.encode())]
        if not isinstance(static, RedirectTemplate):
            self._content = static.content
            if static.status == 200 and route.answer.etag:
                self._etag = etag_of(static.content)
                fields += [(b"etag", self._etag.encode())]
            private = caching is not None and forbids_shared(caching)
            own = [field for field in static.fields if not (private and is_targeted(field[0]))]
            fields += [field for field in own if field[0] != b"content-type"]
        self.coded_content = CodedContent(self._content)
        """The coded forms of the content."""
        self._not_modified = tuple(fields)
        """The fields of a 304."""
        if not isinstance(static, RedirectTemplate):
            fields += [field for field in static.fields if field[0] == b"content-type"]
        if static.status not in BODILESS:
            fields += [(b"content-length", b"%d" % len(self._content))]
        self._fields = tuple(fields)
        self._prepared = RouteFields(fields)
        """The fields of the usual response."""
        media = dict(fields).get(b"content-type", b"")
        if self.compression is not None and media and not self.compression.has_type(media):
            self.compression = None  # So a 304, which has no Content-Type, has no Vary that the 200 lacks.

    async def _reply(self, ctx: RequestContext, path: Mapping[str, Any]) -> Reply:
        ctx.coded_content = self.coded_content
        self._context.require_runtime()
        reply = self.reply(ctx, path)
        if self.delay:
            await self.wait(ctx)
        return reply

    def reply(self, ctx: RequestContext, path: Mapping[str, Any]) -> Reply:
        """Make the reply to a request. ``path`` has the values of the rule's variables.

        Raises:
            RequestError: 400, a query parameter is missing or malformed, or a value does not fit into the Location;
                412, If-Match names another entity tag.
        """
        if self._redirect is not None:
            context = request_context(self._plan, self._inputs.read(ctx, path))
            try:
                location = self._redirect.location(context, ctx.query)
            except BadValueError as error:
                raise RequestError(400, _sentence(error)) from error
            return Reply(self._status, [(b"location", location), *self._fields], b"")
        if self._reads_query:
            self._inputs.read(ctx, path)
        if self._etag and ctx.facts.method in _SAFE:
            asked = ctx.origin.fields.by_name
            if "if-match" in asked:
                check_if_match(ctx, self._etag)
            if "if-none-match" in asked and not_modified(asked["if-none-match"], self._etag):
                return Reply(304, [*self._not_modified], b"")
        return Reply(self._status, ResponseFields(self._prepared, ()), self._content)

    async def wait(self, ctx: RequestContext) -> None:
        """Wait for the delay of the response, or for the request's deadline if the client asks for less.

        Raises:
            RequestError: 504, the deadline is earlier than the response.
        """
        due = ctx.facts.started_at + self.delay
        await trio.sleep_until(min(due, ctx.facts.deadline))
        if ctx.facts.deadline < due:
            ctx.kind = Kind.TIMEOUT
            raise RequestError(504, "The response did not come within the time that the request allows.")


def _sentence(error: BadValueError) -> str:
    """The detail for the client: what is wrong with its value, without the value."""
    where = error.client_parameter or "A value"
    return f"{where[:1].upper()}{where[1:]} {error.reason}."
