"""Proxy route: a configured route that passes requests on to one upstream.

A ``ProxyView`` is called either by Quart's dispatch (``view``) or by a ``ProxyCycle``, as a ``RouteView`` is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from quart.wrappers.response import ResponseBody

from ..configured_view import ConfiguredView
from ..quart.quart_body import QuartBody
from ..request.inputs import InputRules
from ..request.query import QueryRules
from ..request_context import current_request
from ..response.reply import Reply
from .proxied_request import ProxiedRequest
from .proxy_rules import ProxyRules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ...composition.plan.plan import Plan
    from ...composition.proxy.proxy_plan import ProxyPlan
    from ..context import GatewayContext
    from ..request.request_fields import RequestFields
    from ..request_context import RequestContext


class ProxyView(ConfiguredView):
    """Answers the requests for one proxy route. Holds no data of a request.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
        proxy: ``plan.proxy``.
    """

    passes_on = True

    def __init__(self, context: GatewayContext, plan: Plan, proxy: ProxyPlan) -> None:
        inputs = InputRules(QueryRules(plan.route.query_params))
        ConfiguredView.__init__(self, context, plan, inputs)
        self.rules = ProxyRules(context, plan, proxy, inputs)
        self.compression = None
        """Nothing is compressed: the response is that of the upstream, in a coding that the client accepts."""

    async def _reply(self, ctx: RequestContext, path: Mapping[str, Any]) -> Reply:
        """Pass the request on. Trailers are left out, and no connection is upgraded."""
        body = cast(QuartBody, current_request().body)
        body.take_any_size()
        request = ProxiedRequest(self.rules, ctx, path, body.receive)
        ctx.at_end = request.aclose
        reply = await request.begin()
        if reply is None:
            status, fields = request.head()
            whole = request.response.response_ended
            reply = Reply(status, fields, await request.receive() if whole else ProxiedBody(request), named=True)
        return reply

    def deadline(self, fields: RequestFields, complete_at: float) -> float:
        """The deadline of a request: none, because its limits are those of single steps (``ProxyPlan.limits``)."""
        return math.inf


class ProxiedBody(ResponseBody):
    """The body of a response of an upstream, for Quart. Its first part may be empty: so the head is sent at once."""

    def __init__(self, request: ProxiedRequest) -> None:
        self._request = request
        self._begun = False

    async def __aenter__(self) -> ProxiedBody:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Do nothing: the end of the request ends the call, also if no body was sent."""

    def __aiter__(self) -> ProxiedBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return self._request.response.take_rest()
        data = await self._request.receive()
        if not data:
            raise StopAsyncIteration
        return data
