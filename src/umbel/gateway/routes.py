"""Route of the configuration: reads a request, runs the plan of the route, and makes the response.

A ``RouteView`` is called either by Quart's dispatch (``view``) or by a ``PlanCycle`` (the single steps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio

from ..composition.answer.result import Result
from ..composition.engine import OnWait
from ..composition.plan_run import PlanRun
from ..core.inbound import ClientGoneError
from .configured_view import ConfiguredView
from .quart.quart_body import QuartBody
from .request.content_negotiation import StreamForm, stream_form
from .request.inputs import InputRules
from .request.query import QueryRules
from .request.urlencoded import Names
from .request_context import RequestContext, current_request
from .response.answer import AnswerRules, answer
from .response.reply import Reply
from .response.streaming import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..composition.plan.plan import Plan
    from ..core.model import Inputs
    from .context import GatewayContext
    from .request.request_fields import RequestFields


class RouteView(ConfiguredView):
    """Answers the requests for one configured route. Holds no data of a request.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
    """

    def __init__(self, context: GatewayContext, plan: Plan) -> None:
        route = plan.route
        inputs = InputRules(
            QueryRules(route.query_params),
            route.body if plan.uses_body else None,
            None if plan.body_fields is None else Names(plan.body_fields),
            min(route.max_body, context.config.server.max_body),
            context.compression,
            plan.form_lists,
            plan.takes_if_match,
        )
        ConfiguredView.__init__(self, context, plan, inputs)
        self.answer_rules = AnswerRules(
            plan.vary, etag=route.answer.etag, expose=route.expose, krakend_compat=route.krakend_compat
        )
        self.read = inputs.read
        """``InputRules.read``: reads the inputs of a request whose body the plan does not use."""
        self._streams = route.stream
        self.methods = frozenset(plan.methods)
        self.reads_body = plan.uses_body

    async def _reply(self, ctx: RequestContext, path: Mapping[str, Any]) -> Reply:
        ctx.body = cast(QuartBody, current_request().body)
        self._context.require_runtime()  # Raises 503 before the body is read.
        inputs = await self.read_with_body(ctx, path) if self.reads_body else self.read(ctx, path)
        form = self.form(ctx.origin.fields)
        if form is not None:
            return await self.stream(ctx, inputs, form)
        return answer(await self.run(ctx, inputs).run(), self.answer_rules, ctx)

    def form(self, fields: RequestFields) -> StreamForm | None:
        """The form of the stream for a request with ``fields``; None: a single response."""
        if not fields.names_stream and not self._streams:
            return None
        return stream_form(fields.get("accept"), always=self._streams)

    async def read_with_body(self, ctx: RequestContext, path: Mapping[str, Any]) -> Inputs:
        """Read the inputs of a request whose body the plan uses. Moves the deadline if the body was waited for.

        Raises:
            RequestError, HTTPException, ClientGoneError: as ``InputRules.read_with_body``.
        """
        inputs = await self._inputs.read_with_body(ctx, path)
        if (now := trio.current_time()) > ctx.facts.started_at:
            ctx.became_complete(self.deadline(ctx.origin.fields, now), now)
        return inputs

    def run(self, ctx: RequestContext, inputs: Inputs, on_wait: OnWait | None = None) -> PlanRun:
        """Make the composition for a request, without starting it. ``on_wait``: see ``engine.OnWait``.

        Raises:
            RequestError: 503, the application has not started or has stopped.
            ClientGoneError: the client has left, so no call must be started.
        """
        runtime = self._context.serving.runtime or self._context.require_runtime()
        if ctx.inbound.gone:
            raise ClientGoneError("the client left before the calls began")
        facts, recorder, calls = ctx.facts, ctx.recorder, ctx.calls
        made = PlanRun(self._plan, inputs, facts, runtime.callers, recorder, None, calls, on_wait, runtime.timers)
        if self._plan.has_mirrors:
            made.copies = ctx.copies = []
        return made

    async def stream(self, ctx: RequestContext, inputs: Inputs, form: StreamForm) -> Reply:
        """Start the composition in the request's nursery, and return the streaming reply when its first line is there.

        If the composition has failed by then, return its problem document. A cancel of the nursery cuts the stream.

        Raises:
            RequestError: 503, the application has not started or has stopped.
        """
        callers = self._context.require_runtime().callers
        begun = await stream(self._plan, inputs, ctx.facts, callers, ctx, form, self.answer_rules.vary)
        return answer(begun, self.answer_rules, ctx) if isinstance(begun, Result) else begun
