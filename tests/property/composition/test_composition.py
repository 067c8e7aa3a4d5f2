"""Random plans against random upstreams on the autojump clock: the rules of a composition hold.

A plan is a random graph of calls with random options. Each target gives a random value, status or error, or hangs,
after a random time. The upstream is an httpx transport, a caller whose calls end in callbacks, or Umbel's client over
memory streams. After each run every call has ended exactly once, the answer follows the rules, the deadline has been
kept, and no task and no call is left.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import json

from tests.support.composition.composing import Scripted, facts
from tests.support.composition.scripted_calls import NEVER, Reply, ScriptedCaller
from tests.support.logs.records import Records
from tests.support.upstream.memory_client import memory_client
from tests.support.upstream.raw_server import Peer, response
from umbel.composition.answer.result import Result
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.plan import Plan
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Config
from umbel.core.call import Caller
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import CUT, Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs, Outcome
from umbel.policy.retry import RetryRules
from umbel.upstream import BreakerRules

DEADLINE = 1.0


class _ResetError(UpstreamError):
    kind = Kind.RESET


class Behaviour(NamedTuple):
    """What the upstream does with one target."""

    after: float
    what: str
    status: int = 200
    value: Any = None
    waits: int = 0
    """How often the call needs a task, one after the other."""


values = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from(["x", "", "..", "a/b"]), st.lists(st.integers(0, 3), max_size=4)
)
behaviours = st.builds(
    Behaviour,
    after=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.5]),
    what=st.sampled_from(["value", "value", "value", "status", "reset", "crash", "hang", "garbage"]),
    status=st.sampled_from([204, 301, 404, 409, 500, 503]),
    value=values,
    waits=st.sampled_from([0, 0, 0, 1, 2]),
)


@st.composite
def call_tables(draw: st.DrawFn, name: str, before: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"upstream": "u", "path": f"/{name}"}
    if before and draw(st.booleans()):
        table["path"] += f"/{{{draw(st.sampled_from(before))}}}"
    if before and draw(st.integers(0, 3)) == 0:
        table["each"] = draw(st.sampled_from(before))
        table["path"] += "/{item}"
        table["limit"] = draw(st.integers(1, 3))
        table["max_items"] = draw(st.integers(2, 4))
    if before and draw(st.integers(0, 3)) == 0:
        table["when"] = draw(st.sampled_from(before))
    if draw(st.booleans()):
        table["optional"] = True
    if (table.get("optional") or "when" in table) and draw(st.booleans()):
        table["default"] = draw(st.sampled_from([0, "d", []]))
    if draw(st.integers(0, 3)) == 0:
        table["timeout"] = draw(st.sampled_from(["200ms", "600ms", "2s"]))
    if draw(st.integers(0, 4)) == 0:
        table["null_on"] = [404]
    return table


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = ["a", "b", "c", "d", "e"][: draw(st.integers(1, 5))]
    calls: dict[str, Any] = {}
    for place, name in enumerate(names):
        calls[name] = draw(call_tables(name, names[:place]))
    route: dict[str, Any] = {"path": "/r", "calls": calls}
    kind = draw(st.sampled_from(["all", "all", "all", "first", "quorum"]))
    if kind != "all":
        route["combine"] = kind
    if kind == "quorum":
        route["quorum"] = 1
    made = Config.model_validate({"upstreams": {"u": {"urls": ["http://127.0.0.1:1"]}}, "routes": [route]})
    return compile_route(made, 0)


Drawn = list[Behaviour]
Opening = Callable[[Drawn], AbstractAsyncContextManager[Caller]]
"""Opens an upstream with the drawn behaviours. When it closes, it asserts that no call is in flight."""


def of_target(drawn: Drawn, target: str) -> Behaviour:
    assert "/../" not in f"{target}/"
    return drawn[sum(target.encode()) % len(drawn)]


@asynccontextmanager
async def foreign(drawn: Drawn) -> AsyncIterator[Caller]:
    """An upstream that is an httpx transport."""

    async def behave(request: httpx.Request) -> httpx.Response:
        behaviour = of_target(drawn, request.extensions["target"].decode())
        await trio.sleep(behaviour.after)
        match behaviour.what:
            case "value":
                return httpx.Response(200, json=behaviour.value)
            case "status":
                return httpx.Response(behaviour.status)
            case "reset":
                raise _ResetError("reset")
            case "crash":
                raise ZeroDivisionError
            case "garbage":
                return httpx.Response(200, content=b"{")
            case _:
                await trio.sleep(math.inf)
        raise AssertionError

    transport = Scripted(behave)
    yield TransportCaller(transport)
    assert transport.in_flight == 0


@asynccontextmanager
async def callbacks(drawn: Drawn) -> AsyncIterator[Caller]:
    """An upstream whose calls end in callbacks, some within ``start``, or in a task if the call needs one."""
    errors = {"reset": _ResetError("reset"), "crash": ZeroDivisionError()}

    def reply(target: str) -> Reply:
        _, what, status, value, waits = behaviour = of_target(drawn, target)
        return Reply(
            NEVER if what == "hang" else behaviour.after,
            status if what == "status" else 200,
            value,
            b"{" if what == "garbage" else None,
            errors.get(what),
            waits=waits,
        )

    caller = ScriptedCaller(reply)
    yield caller
    assert not caller.under_way


@asynccontextmanager
async def client(drawn: Drawn) -> AsyncIterator[Caller]:
    """Umbel's client with retries, a sensitive breaker and few bulkhead slots."""

    async def serve(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            after, what, status, value, _ = of_target(drawn, head.split(b" ")[1].decode())
            with trio.move_on_after(NEVER if what == "hang" else after) as scope:
                await peer.closed()
            if not scope.cancelled_caught or what == "reset":
                return
            body = b"" if (what, status) == ("status", 204) else b"{" if what == "garbage" else json.encode(value)
            answer = response(body, status=b"%d X" % (status if what == "status" else 200))
            await peer.send(b"no HTTP" if what == "crash" else answer[:20])
            await peer.send(answer[20:])

    policies = {"retry": RetryRules(attempts=2), "breaker": BreakerRules(min_requests=3), "max_concurrency": 2}
    async with memory_client(serve, "http://a", "http://b", **policies) as made:
        yield made


def check_outcome(plan: Plan, outcome: Outcome) -> None:
    assert (outcome.state == "failed") == (outcome.failure is not None)
    if outcome.started_at is not None:
        assert outcome.started_at <= outcome.ended_at
    call = next(call for call in plan.calls if call.name == outcome.call)
    if outcome.state != "value":
        assert outcome.value == call.rules.default
    if outcome.failed_items:
        assert call.fan_out is not None
        assert call.rules.optional


def check_answer(plan: Plan, result: Result) -> None:
    outcomes = {outcome.call: outcome for outcome in result.outcomes}
    candidates = [outcomes[name] for name in plan.candidates]
    if plan.needed:
        landed = [outcome for outcome in candidates if outcome.state == "value"]
        if result.failure is None and landed:
            assert len(landed) >= plan.needed
        return
    required = [
        outcomes[call.name].failure for call in plan.calls if not call.rules.optional and outcomes[call.name].failure
    ]
    decisive = [failure for failure in required if failure.kind not in CUT]
    if decisive:
        assert result.failure in decisive
    elif all(outcome.failure for outcome in result.outcomes) and not any(c.rules.has_default for c in plan.calls):
        assert result.failure is not None
        assert result.failure.status == max(o.failure.status for o in result.outcomes if o.failure)
    else:
        assert result.failure is None
        assert list(result.answer) == [call.name for call in plan.calls]
        assert result.answer == {name: outcome.value for name, outcome in outcomes.items()}
        assert result.completed == all(outcome.complete for outcome in result.outcomes)


def check_order(plan: Plan, result: Result) -> None:
    """Assert that each call started after the end of all calls that it needs."""
    outcomes = {outcome.call: outcome for outcome in result.outcomes}
    for call in plan.calls:
        started = outcomes[call.name].started_at
        if started is not None:
            assert all(outcomes[needed].ended_at <= started for needed in call.needs)


def check_result(plan: Plan, result: Result) -> None:
    assert [outcome.call for outcome in result.outcomes] == [call.name for call in plan.calls]
    for outcome in result.outcomes:
        check_outcome(plan, outcome)
    check_answer(plan, result)
    check_order(plan, result)


async def run_one(plan: Plan, opening: Opening, drawn: Drawn, cancel_after: float | None) -> None:
    recorder = Records()
    started = trio.current_time()
    result = None
    async with opening(drawn) as upstream:
        with trio.move_on_after(math.inf if cancel_after is None else cancel_after) as scope:
            result = await run(plan, Inputs(), facts(DEADLINE), {"u": upstream}, recorder)
    assert recorder.ended_calls == sorted(call.name for call in plan.calls), "each call has exactly one outcome"
    assert trio.current_time() - started <= DEADLINE + 1e-6
    if result is None:
        assert scope.cancelled_caught
        return
    check_result(plan, result)


@pytest.mark.parametrize("opening", [foreign, callbacks, client], ids=lambda each: each.__name__)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(
    plan=plans(),
    drawn=st.lists(behaviours, min_size=1, max_size=7),
    cancel_after=st.one_of(st.none(), st.none(), st.sampled_from([0.0, 0.05, 0.3, 0.7])),
)
def test_the_rules_hold_for_any_plan_and_any_upstream(
    opening: Opening, plan: Plan, drawn: Drawn, cancel_after: float | None
) -> None:
    trio.run(run_one, plan, opening, drawn, cancel_after, clock=trio.testing.MockClock(autojump_threshold=0))
