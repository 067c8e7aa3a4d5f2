"""Random plans against random upstreams, on the autojump clock: the rules hold whatever happens.

A plan is drawn as a graph of calls with random options; each target behaves as drawn: a value, a status, an error, a
hang, after a random while. After each run: every call ended exactly once, the answer obeys the rules, nothing is
later than the deadline, and no task and no call is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import httpx
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.composing import Scripted, facts
from tests.support.records import Records
from umbel.composition.dag import Plan
from umbel.composition.plan import compile_route
from umbel.composition.result import Result
from umbel.composition.run import run
from umbel.config.schema import Config
from umbel.errors import UpstreamError
from umbel.kinds import CUT, Kind
from umbel.model import Inputs, Outcome

DEADLINE = 1.0


class _ResetError(UpstreamError):
    kind = Kind.RESET


@dataclass(frozen=True)
class Behaviour:
    """What the upstream does with one target."""

    after: float
    what: str
    status: int = 200
    value: Any = None


values = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from(["x", "", "..", "a/b"]), st.lists(st.integers(0, 3), max_size=4)
)
behaviours = st.builds(
    Behaviour,
    after=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.5]),
    what=st.sampled_from(["value", "value", "value", "status", "reset", "crash", "hang", "garbage"]),
    status=st.sampled_from([204, 301, 404, 409, 500, 503]),
    value=values,
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


class Upstream(Scripted):
    """Behaves as drawn, per target."""

    def __init__(self, drawn: list[Behaviour]) -> None:
        super().__init__(self._behave)
        self._drawn = drawn

    async def _behave(self, request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"].decode()
        assert "/../" not in f"{target}/"
        behaviour = self._drawn[sum(target.encode()) % len(self._drawn)]
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


def check_outcome(plan: Plan, outcome: Outcome) -> None:
    assert (outcome.state == "failed") == (outcome.failure is not None)
    if outcome.started_at is not None:
        assert outcome.started_at <= outcome.ended_at
    call = next(call for call in plan.calls if call.name == outcome.call)
    if outcome.state != "value":
        assert outcome.value == call.rules.default
    if outcome.failed_items:
        assert call.each is not None
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
    """No call began before all that it names had ended."""
    outcomes = {outcome.call: outcome for outcome in result.outcomes}
    for call in plan.calls:
        started = outcomes[call.name].started_at
        if started is not None:
            assert all(outcomes[needed].ended_at <= started for needed in call.needs)


async def fly(plan: Plan, upstream: Upstream, cancel_after: float | None) -> None:
    recorder = Records()
    started = trio.current_time()
    result = None
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(math.inf if cancel_after is None else cancel_after) as client:
        result = await run(plan, Inputs(), facts(DEADLINE), {"u": upstream}, recorder)
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    assert upstream.in_flight == 0
    recorded = [event.outcome.call for event in recorder.calls]
    assert sorted(recorded) == sorted(call.name for call in plan.calls), "each call has exactly one outcome"
    assert trio.current_time() - started <= DEADLINE + 1e-6
    if result is None:
        assert client.cancelled_caught
        return
    assert [outcome.call for outcome in result.outcomes] == [call.name for call in plan.calls]
    for outcome in result.outcomes:
        check_outcome(plan, outcome)
    check_answer(plan, result)
    check_order(plan, result)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(
    plan=plans(),
    drawn=st.lists(behaviours, min_size=1, max_size=7),
    cancel_after=st.one_of(st.none(), st.none(), st.sampled_from([0.0, 0.05, 0.3, 0.7])),
)
def test_the_rules_hold_for_any_plan_and_any_upstream(
    plan: Plan, drawn: list[Behaviour], cancel_after: float | None
) -> None:
    trio.run(fly, plan, Upstream(drawn), cancel_after, clock=trio.testing.MockClock(autojump_threshold=0))
