"""What all kinds of configured routes have in common: composed, static and proxy routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..auth.current_identity import set_current
from .access.configured_access import admission_of_route
from .request_context import current_request_context
from .response.reply import as_response

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse

    from ..composition.plan.plan import Plan
    from .context import GatewayContext
    from .request.inputs import InputRules
    from .request.request_fields import RequestFields
    from .request_context import RequestContext
    from .response.reply import Reply


class ConfiguredView:
    """Answers the requests for one configured route. Holds no data of a request.

    Requests come either from Quart's dispatch (``view``) or from a request cycle, which uses the parts of the subclass.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
        inputs: reads the inputs of a request whose body is not received.
    """

    passes_on = False
    """Whether it is a proxy route."""

    def __init__(self, context: GatewayContext, plan: Plan, inputs: InputRules) -> None:
        route = plan.route
        self._context = context
        self._plan = plan
        self._inputs = inputs
        self._seconds = plan.deadline
        self.rule = route.path
        self.compression = context.compression if route.compress else None
        """Compresses the responses of the route; None: they are sent as they are."""
        self.browser_fields = context.browsers.of(route.cors, proxied=self.passes_on)
        self.krakend_compat = route.krakend_compat and route.expose != "none"
        self.admission = admission_of_route(context, plan, inputs.read)
        """Which requests it admits; None: all."""

    async def view(self, **path: Any) -> TrioResponse:
        """Quart's view: answer the current request of Quart.

        Raises:
            RequestError: the request is invalid or not admitted, or (503) the application has not started or has
                stopped.
        """
        ctx = current_request_context()
        ctx.compression = self.compression
        ctx.routed(self.rule, self.deadline(ctx.origin.fields, ctx.facts.started_at))
        if self.admission is not None:
            await self.admission.admit(ctx, path)
            set_current(ctx.identity)
        return as_response(await self._reply(ctx, path))

    async def _reply(self, ctx: RequestContext, path: Mapping[str, Any]) -> Reply:
        """Make the reply to a request of Quart that the route has admitted. Errors: as ``view``."""
        raise NotImplementedError

    def deadline(self, fields: RequestFields, complete_at: float) -> float:
        """The deadline (``trio.current_time()``) of a request with ``fields`` that was complete at ``complete_at``."""
        if fields.client_timeout is None:
            return complete_at + self._seconds
        return deadline_of(fields, complete_at, self._seconds)


def deadline_of(fields: RequestFields, complete_at: float, seconds: float) -> float:
    """The deadline of a request: ``complete_at`` plus ``seconds``, or plus the client's own timeout if that is less."""
    timeout = fields.client_timeout
    return complete_at + (seconds if timeout is None else min(seconds, timeout))
