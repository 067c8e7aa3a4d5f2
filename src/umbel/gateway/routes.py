"""A route of the configuration as a Quart view.

Made by ``app.py``, one per route. The view reads the request, runs the plan and writes the result; each of the three
is a file of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quart.wrappers import Request

from ..composition.result import Result
from ..composition.run import run
from .accept import stream_form
from .budget import client_budget
from .exchange import Exchange, current_exchange, current_request
from .inputs import InputRules
from .query import QueryRules
from .respond import AnswerRules, answer
from .streaming import stream

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse

    from ..composition.dag import Plan
    from ..model import RequestFacts
    from .app import Umbel


class RouteView:
    """The view of one configured route; everything that does not depend on the request is made here, once."""

    def __init__(self, app: Umbel, plan: Plan, max_body: int) -> None:
        route = plan.route
        self._app = app
        self._plan = plan
        self._inputs = InputRules(
            QueryRules(route.query_params), route.body if plan.uses_body else None, min(route.max_body, max_body)
        )
        self._answer = AnswerRules.varying(
            plan.vary, etag=route.answer.etag, expose=route.expose, krakend_compat=route.krakend_compat
        )

    async def view(self, **path: Any) -> TrioResponse:
        """Answer one request.

        Raises:
            RequestError: the request cannot be answered as it stands, or nothing can be at the moment (503).
        """
        plan = self._plan
        request = current_request()
        exchange = current_exchange()
        facts = routed(exchange, request, plan.route.path, plan.deadline)
        runtime = self._app.runtime
        inputs = await self._inputs.read(request, exchange, path, facts.deadline)
        form = stream_form(request.headers.get("accept"), always=plan.route.stream)
        if form is not None:
            begun = await stream(plan, inputs, facts, runtime.transports, exchange, form, self._answer.vary)
            if not isinstance(begun, Result):
                return begun
            result = begun
        else:
            result = await run(plan, inputs, facts, runtime.transports, exchange.recorder)
        return answer(result, self._answer, exchange, request)


def routed(exchange: Exchange, request: Request, rule: str, deadline: float) -> RequestFacts:
    """The facts of a request that ``rule`` has matched: due ``deadline`` seconds after it came, or when it asks."""
    wish = client_budget(request.headers)
    seconds = deadline if wish is None else min(deadline, wish)
    return exchange.routed(rule, exchange.facts.started_at + seconds)
