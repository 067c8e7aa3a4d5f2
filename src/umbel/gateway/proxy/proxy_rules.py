"""What the requests of one proxy route have in common. Holds no data of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...composition.plan.plan import Plan, request_context
from ...core.call import StreamLimits
from ..response.answer import AnswerRules

if TYPE_CHECKING:
    from ...composition.proxy.proxy_plan import ProxyPlan
    from ...core.model import Json
    from ..context import GatewayContext
    from ..request.inputs import InputRules
    from ..request_context import RequestContext


class ProxyRules:
    """The rules of one proxy route.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
        proxy: ``plan.proxy``.
        inputs: reads the inputs of a request.
    """

    def __init__(self, context: GatewayContext, plan: Plan, proxy: ProxyPlan, inputs: InputRules) -> None:
        route = plan.route
        self._plan = plan
        self._inputs = inputs
        self.context = context
        self.proxy = proxy
        self.limits = StreamLimits(proxy.first_byte, proxy.idle_timeout, proxy.max_lifetime)
        """The time limits of each call."""
        self.answer = AnswerRules(etag=False, expose=route.expose, krakend_compat=route.krakend_compat)
        """Of problem documents; the fields of responses are those of the upstream."""

    def values(self, ctx: RequestContext, path: Mapping[str, Any]) -> Mapping[str, Json]:
        """The evaluation context for the templates of the plan; empty if they read nothing of the request.

        Args:
            ctx: the request context.
            path: the values of the rule's variables.

        Raises:
            RequestError: 400, a query parameter that the route declares is missing or malformed.
        """
        if not self.proxy.reads_request:
            return {}
        return request_context(self._plan, self._inputs.read(ctx, path))
