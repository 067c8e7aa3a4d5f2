"""From outcomes to the answer: its shape, status, headers and caching rules.

The last step of a composition, once every call has its outcome. Pure but for reading the clock for the own time.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from ..events import Recorder
from ..model import Failure, Json, Outcome, RequestFacts
from .combine import is_complete, successes
from .dag import Plan
from .expression import ExpressionError, failed_expression
from .fault import bad_request
from .merge import strictest_cache_control
from .result import Result, own_time
from .template import BadValueError


def shape_result(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    context: Mapping[str, Json],
    failure: Failure | None,
    facts: RequestFacts,
    recorder: Recorder,
    *,
    whole: bool = False,
) -> Result:
    """The result of a composition whose calls have all ended, decided by ``failure`` or (None) by what is there.

    ``whole``: it is known that nothing is missing.
    """
    ordered = tuple([outcomes[call.name] for call in plan.calls])  # a generator costs a call per item
    own_ms = own_time(facts.started_at, trio.current_time(), ordered) * 1000
    if failure is not None:
        return Result(ordered, failure, completed=False, own_ms=own_ms)
    try:
        answer = _answer(plan, outcomes, context)
        headers = _headers(plan, outcomes, context)
    except ExpressionError as error:
        failed = failed_expression(error, plan.where(error.where), facts, recorder)
        return Result(ordered, failed, completed=False, own_ms=own_ms)
    except BadValueError as error:
        refused = bad_request(f"a header of the answer: {error}", error.client, error.reason)
        return Result(ordered, refused, completed=False, own_ms=own_ms)
    return Result(
        ordered,
        None,
        answer,
        plan.route.answer.status,
        headers,
        whole or is_complete(plan, outcomes),
        _cache_control(plan, ordered, headers),
        own_ms,
    )


def _answer(plan: Plan, outcomes: Mapping[str, Outcome], context: Mapping[str, Json]) -> Json:
    if plan.shape is not None:
        return plan.shape.evaluate(context)
    if plan.route.combine == "all":
        return {call.name: outcomes[call.name].value for call in plan.calls}
    values = [outcome.value for outcome in successes(plan, outcomes)]
    if plan.route.combine == "quorum":
        return values
    return values[0] if values else None


def _headers(plan: Plan, outcomes: Mapping[str, Outcome], context: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    answer = plan.route.answer
    fields = [
        (name, text) for name, template in plan.answer_headers if (text := template.expand(context, {})) is not None
    ]
    for call, names in answer.forward_headers.items():
        fields.extend((name, value) for name, value in outcomes[call].headers if name in names)
    for call, names in answer.forward_cookies.items():
        fields.extend(
            (name, value)
            for name, value in outcomes[call].headers
            if name == "set-cookie" and value.partition("=")[0].strip() in names
        )
    return tuple(fields)


def _cache_control(plan: Plan, outcomes: tuple[Outcome, ...], headers: tuple[tuple[str, str], ...]) -> str | None:
    configured = plan.route.answer.cache_control
    if configured != "parts":
        return configured
    parts = [outcome.headers for outcome in outcomes if outcome.state == "value"]
    # A cookie is for one client: a shared cache that kept it would hand it to the others (RFC 9111 section 7.3).
    return strictest_cache_control(parts, private=plan.private or any(name == "set-cookie" for name, _ in headers))
