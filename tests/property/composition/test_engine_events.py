"""Random plans whose calls end in a random order, several in one turn: each call has one outcome and one record.

An example is a list of events: a call ends, a call needs a task, the composition's task gets a turn, time passes, the
deadline comes, or the composition is cancelled. The rules of a composition must hold in any order.
"""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.composition.test_composition import DEADLINE, check_result, plans, values
from tests.support.composition.composing import facts
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.engine import INLINE_MAX
from umbel.composition.plan.plan import Plan
from umbel.composition.plan_run import run
from umbel.core.model import Inputs
from umbel.upstream.errors import ConnectionReset

Event = tuple[str, int]

events = st.lists(
    st.tuples(
        st.sampled_from(["end", "end", "end", "end", "wait", "turn", "turn", "turn", "time", "deadline", "cancel"]),
        st.integers(0, 7),
    ),
    max_size=30,
)
replies = st.lists(
    st.builds(
        Reply,
        after=st.sampled_from([float("inf")] * 4 + [0.0]),
        status=st.sampled_from([200, 200, 200, 404, 500]),
        value=values,
        content=st.sampled_from([None, None, None, b"{", b"1" + b" " * INLINE_MAX, b"{" + b" " * INLINE_MAX]),
        error=st.sampled_from([None, None, None, ConnectionReset("no"), ZeroDivisionError()]),
        headers=st.just(()),
        waits=st.sampled_from([0, 0, 0, 1, 2]),
    ),
    min_size=1,
    max_size=5,
)


async def run_events(plan: Plan, drawn: list[Reply], happening: list[Event], clock: trio.testing.MockClock) -> None:
    upstream = ScriptedCaller(lambda target: drawn[sum(target.encode()) % len(drawn)])
    records, result = Records(), None
    scope = trio.CancelScope()

    async def compose() -> None:
        nonlocal result
        with scope:
            result = await run(plan, Inputs(), facts(DEADLINE), {"u": upstream}, records)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(compose)
        await trio.testing.wait_all_tasks_blocked()
        for what, number in [*happening, ("deadline", 0)]:
            under_way = upstream.under_way
            call = under_way[number % len(under_way)] if under_way else None
            match what:
                case "end" if call is not None:
                    call.end()
                case "wait" if call is not None:
                    call.resume()
                case "turn":
                    await trio.testing.wait_all_tasks_blocked()
                case "time":
                    clock.jump(0.1)
                case "deadline":
                    clock.jump(2 * DEADLINE)
                case "cancel":
                    scope.cancel(reason="client-gone")
    assert not upstream.under_way
    assert records.ended_calls == sorted(call.name for call in plan.calls), "each call has exactly one outcome"
    if result is None:
        assert scope.cancelled_caught
    else:
        check_result(plan, result)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(plan=plans(), drawn=replies, happening=events)
def test_any_order_of_events_gives_each_call_one_outcome(
    plan: Plan, drawn: list[Reply], happening: list[Event]
) -> None:
    clock = trio.testing.MockClock()
    trio.run(run_events, plan, drawn, happening, clock, clock=clock)
