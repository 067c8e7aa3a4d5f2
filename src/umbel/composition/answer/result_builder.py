"""Builder of the result: makes the answer's value, status, header fields and Cache-Control from the outcomes.

It runs after the last outcome of a composition.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...core.events import Recorder
from ...core.failure_kinds import Kind
from ...core.model import Failure, Inputs, Json, Outcome, RequestFacts
from ..plan.plan import CallPlan, Plan
from ..text.expression import ExpressionError, failed_expression
from ..text.field_template import OnLeftOut, record_left_out
from .cache_control import Fields, answer_cache_control, cache_control_without_parts
from .decision import is_complete, successes
from .result import Result, own_time
from .status_fields import REDIRECTS, STATUS_FROM


def build_result(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    context: Mapping[str, Json],
    inputs: Inputs,
    failure: Failure | None,
    facts: RequestFacts,
    recorder: Recorder,
    now: float,
    *,
    whole: bool = False,
) -> Result:
    """Build the result of a composition whose calls have all been settled. If ``shape`` fails, the result is a failure.

    Args:
        context: the evaluation context, with the values of the calls.
        failure: the deciding failure; None: the outcomes make an answer.
        now: ``trio.current_time()``.
        whole: every call has succeeded with a complete value, so the outcomes need no check.
    """
    ordered = tuple([outcomes[call.name] for call in plan.calls])  # A list is faster than a generator.
    own_ms = own_time(facts.due_from, now, ordered) * 1000
    if whole and plan.is_plain_object and failure is None:
        values: dict[str, Json] = {}
        for outcome in ordered:
            if outcome.headers:
                break  # The fields may hold cache directives.
            values[outcome.call] = outcome.value
        else:
            caching = cache_control_without_parts(plan.cache_control, personal=_is_personal(plan, inputs))
            return Result(ordered, None, values, plan.route.answer.status, (), True, caching, own_ms, failed=False)
    if failure is not None:
        return _failed(plan, outcomes, ordered, failure, own_ms)
    try:
        answer = _answer(plan, outcomes, context)
    except ExpressionError as error:
        failed = failed_expression(error, plan.where(error.where), facts, recorder)
        return _failed(plan, outcomes, ordered, failed, own_ms)
    headers = _headers(plan, outcomes, context, partial(record_left_out, facts, recorder))
    complete = whole or is_complete(plan, outcomes)
    status = plan.route.answer.status
    received: Fields = ()
    if plan.calls and (only := plan.calls[0]).conditions:
        status, received = _single_response_fields(only, outcomes[only.name], status, headers)
    source = plan.route.answer.status_from
    if source is not None:
        status = outcomes[source].answer_status or status
    if status in STATUS_FROM:
        received = (*received, *_location(ordered if source is None else (outcomes[source],), status, headers))
    validated = bool(received) and any(name in ("etag", "last-modified") for name, _ in received)
    caching, fields = _answer_cache_control(plan, ordered, (*headers, *received), inputs, complete=complete)
    return Result(ordered, None, answer, status, fields, complete, caching, own_ms, validated=validated)


def _failed(
    plan: Plan, outcomes: Mapping[str, Outcome], ordered: tuple[Outcome, ...], failure: Failure, own_ms: float
) -> Result:
    """The result with this deciding failure, the header fields of its status, and the forwarded cookies."""
    return failed_result(ordered, failure, (*failure_fields(failure), *_cookies(plan, outcomes)), own_ms)


def failed_result(ordered: tuple[Outcome, ...], failure: Failure, headers: Fields, own_ms: float) -> Result:
    """The result with this deciding failure. A redirect that the answer takes over is a complete answer."""
    return Result(ordered, failure, headers=headers, completed=failure.status in REDIRECTS, own_ms=own_ms)


def failure_fields(failure: Failure) -> tuple[tuple[str, str], ...]:
    """The header fields of an answer that a failure decides: those of its status, and forwarded ones."""
    taken = {name for name, _ in failure.fields} | {"set-cookie"}
    return (*failure.fields, *(field for field in failure.forwarded if field[0] not in taken))


def _answer(plan: Plan, outcomes: Mapping[str, Outcome], context: Mapping[str, Json]) -> Json:
    if plan.answer_expression is not None:
        return plan.answer_expression.evaluate(context)
    if plan.route.combine == "all":
        return {call.name: outcomes[call.name].value for call in plan.calls}
    values = [outcome.value for outcome in successes(plan, outcomes)]
    if plan.route.combine == "quorum":
        return values
    return values[0] if values else None


def _headers(
    plan: Plan, outcomes: Mapping[str, Outcome], context: Mapping[str, Json], left_out: OnLeftOut
) -> tuple[tuple[str, str], ...]:
    answer = plan.route.answer
    fields = [
        (name, value.decode("latin-1"))
        for name, template in plan.answer_headers
        if (value := template.expand(context, {}, left_out)) is not None
    ]
    for call, names in answer.forward_headers.items():
        fields.extend((name, value) for name, value in outcomes[call].headers if name in names)
    return (*fields, *_cookies(plan, outcomes))


def _single_response_fields(call: CallPlan, outcome: Outcome, status: int, headers: Fields) -> tuple[int, Fields]:
    """The status of an answer that is one response, and the response fields that the answer takes over.

    Args:
        status: the status of the route. The response's status replaces it if it results from conditions (206, 304).
        headers: the other header fields of the answer; a field of these names is not taken over.
    """
    if outcome.state != "value":
        return status, ()
    status = outcome.answer_status or status
    wanted = call.rules.validators | ({b"content-range"} if status == 206 else frozenset())
    fields: dict[str, str] = {}
    for name, value in outcome.headers:
        if name.encode("latin-1") in wanted:
            fields.setdefault(name, value)  # A response has one such field; of repeated ones the first counts.
    for name, _ in headers:
        fields.pop(name, None)
    return status, tuple(fields.items())


def _location(outcomes: tuple[Outcome, ...], status: int, headers: Fields) -> Fields:
    """The Location that belongs to the answer's status: that of the first response from which it is taken over.

    Empty if ``headers`` has a Location.
    """
    if any(name == "location" for name, _ in headers):
        return ()
    for outcome in outcomes:
        if outcome.state == "value" and outcome.answer_status == status:
            return tuple(field for field in outcome.headers if field[0] == "location")
    return ()


def _cookies(plan: Plan, outcomes: Mapping[str, Outcome]) -> tuple[tuple[str, str], ...]:
    """The Set-Cookie fields that the answer forwards, also from failed calls.

    A 401 response may end a session, and a session that began must be known to the client though another call fails.
    """
    table = plan.route.answer.forward_cookies
    if not table:
        return ()
    fields: list[tuple[str, str]] = []
    for call, names in table.items():
        outcome = outcomes[call]
        failure, received = outcome.failure, outcome.headers
        if failure is not None:
            # A call with kind dependency has no response: its failure holds the fields of the call that it needs.
            received = failure.forwarded if failure.kind is not Kind.DEPENDENCY else ()
        fields.extend(
            (name, value)
            for name, value in received
            if name == "set-cookie" and value.partition("=")[0].strip() in names
        )
    return tuple(fields)


def _answer_cache_control(
    plan: Plan, outcomes: tuple[Outcome, ...], headers: Fields, inputs: Inputs, *, complete: bool
) -> tuple[str | None, Fields]:
    # An each without items has made no call, so it restricts nothing.
    parts = [
        outcome.headers
        for call, outcome in zip(plan.calls, outcomes, strict=True)
        if outcome.state == "value" and (call.fan_out is None or outcome.value)
    ]
    personal = _is_personal(plan, inputs)
    return answer_cache_control(plan.cache_control, parts, headers, personal=personal, complete=complete)


def _is_personal(plan: Plan, inputs: Inputs) -> bool:
    """Whether the answer is for one client, unless the route has a ``cache_control``."""
    return plan.private or "cookie" in inputs.headers or "authorization" in inputs.headers
