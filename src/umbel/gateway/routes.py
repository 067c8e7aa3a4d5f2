"""A route of the configuration: reads the request, runs the plan and writes the result.

One per route; ``view`` is Quart's way to it, and ``direct.py`` has another. Reading, running and writing are a file
each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ..composition.engine import run
from ..composition.result import Result
from .accept import StreamForm, stream_form
from .budget import client_budget
from .exchange import Exchange, current_exchange, current_request
from .inputs import InputRules
from .query import QueryRules
from .reply import Reply, as_response
from .respond import AnswerRules, answer
from .streaming import stream
from .urlencoded import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart_trio.wrappers import TrioResponse

    from ..composition.dag import Plan
    from .app import Umbel
    from .fields import Fields


class RouteView:
    """One configured route; everything that does not depend on the request is made here, once."""

    def __init__(self, app: Umbel, plan: Plan, max_body: int) -> None:
        route = plan.route
        self._app = app
        self._plan = plan
        self._inputs = InputRules(
            QueryRules(route.query_params),
            route.body if plan.uses_body else None,
            None if plan.body_fields is None else Names(plan.body_fields),
            min(route.max_body, max_body),
        )
        self._answer = AnswerRules(
            plan.vary, etag=route.answer.etag, expose=route.expose, krakend_compat=route.krakend_compat
        )
        self.rule = route.path
        self.methods = frozenset(plan.methods)
        self.reads_body = plan.uses_body
        self.krakend_compat = self._answer.krakend_compat

    async def view(self, **path: Any) -> TrioResponse:
        """Answer one request of Quart's.

        Raises:
            RequestError: the request cannot be answered as it stands, or nothing can be at the moment (503).
        """
        exchange = current_exchange()
        fields = exchange.origin.fields
        exchange.routed(self.rule, self.deadline(fields, exchange.facts.started_at))
        exchange.body = current_request().body
        response = as_response(await self.reply(exchange, path, self.form(fields)))
        # The server's write deadline cuts a client that reads nothing; Quart's would cut one that reads slowly too.
        response.timeout = None
        return response

    def deadline(self, fields: Fields, complete_at: float) -> float:
        """When the answer to a request with these fields is due (absolute), which was complete at that time."""
        return deadline_of(fields, complete_at, self._plan.deadline)

    def form(self, fields: Fields) -> StreamForm | None:
        """The form of stream that a request with these fields gets; None for one whole answer."""
        return stream_form(fields.get("accept"), always=self._plan.route.stream)

    async def reply(self, exchange: Exchange, path: Mapping[str, Any], form: StreamForm | None) -> Reply:
        """The answer to one request that has been routed. A stream needs the request's nursery.

        Raises:
            RequestError: as ``view``.
        """
        runtime = self._app.runtime
        inputs = await self._inputs.read(exchange, path)
        facts = exchange.facts
        if self.reads_body and (now := trio.current_time()) > facts.started_at:
            facts = exchange.became_complete(self.deadline(exchange.origin.fields, now), now)
        if form is not None:
            begun = await stream(self._plan, inputs, facts, runtime.callers, exchange, form, self._answer.vary)
            if not isinstance(begun, Result):
                return begun
            result = begun
        else:
            result = await run(self._plan, inputs, facts, runtime.callers, exchange.recorder, None, exchange.calls)
        return answer(result, self._answer, exchange)


def deadline_of(fields: Fields, complete_at: float, seconds: float) -> float:
    """When an answer is due (absolute): ``seconds`` after the request was complete, or when its client asks for it."""
    wish = client_budget(fields.by_name)
    return complete_at + (seconds if wish is None else min(seconds, wish))
