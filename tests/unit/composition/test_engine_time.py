"""Deadlines and timeouts of a composition, clients that leave, and own time."""

from __future__ import annotations

import pytest
import trio

from tests.support.composition.composing import TWO, Scripted, answer, calls, compose, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.answer.result import own_time
from umbel.composition.plan_run import PlanRun, run
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.inbound import ClientGoneError
from umbel.core.model import Inputs, Outcome
from umbel.net.timers import TimerQueue


async def test_at_the_deadline_the_partial_answer_is_returned(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(
        TWO + "optional = true\ndefault = []\n", {"/a": answer(1), "/b": answer(2, after=9)}, deadline=0.8
    )
    assert ran.elapsed == pytest.approx(0.8)
    assert ran.result.answer == {"a": 1, "b": []}
    assert not ran.result.completed
    assert ran.outcomes["b"].failure.kind is Kind.TIMEOUT


async def test_at_the_deadline_an_unfinished_required_call_is_a_504(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer(2, after=9)}, deadline=0.8)
    assert ran.elapsed == pytest.approx(0.8)
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.TIMEOUT, 504)


async def test_a_call_whose_dependency_is_unfinished_at_the_deadline_never_begins(
    autojump_clock: trio.abc.Clock,
) -> None:
    text = """
    [routes.calls.x]
    upstream = "u"
    path = "/x"
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    optional = true
    default = { id = 1 }
    [routes.calls.b]
    upstream = "u"
    path = "/b/{a.id}"
    optional = true
    """
    ran = await compose(text, {"/x": answer(0), "/a": answer(1, after=9), "/b/1": answer(2)}, deadline=1)
    assert ran.upstream.targets.count("/b/1") == 0
    assert ran.outcomes["b"].failure.kind is Kind.TIMEOUT
    assert ran.outcomes["b"].started_at is None
    assert ran.result.answer == {"x": 0, "a": {"id": 1}, "b": None}


async def test_a_call_has_its_own_deadline_if_earlier_than_that_of_the_route() -> None:
    upstream = ScriptedCaller({"/": Reply(0)})
    await compose(calls("abc", a='timeout = "300ms"', b='timeout = "9s"'), upstream, deadline=2.0)
    given = {
        call.context.call: (call.context.limit, call.context.deadline - call.started_at) for call in upstream.calls
    }
    assert given == {
        "a": (0.3, pytest.approx(0.3, abs=0.1)),
        "b": (None, pytest.approx(2.0, abs=0.1)),
        "c": (None, pytest.approx(2.0, abs=0.1)),
    }


async def test_a_timeout_counts_from_the_start_of_its_call(
    autojump_clock: trio.abc.Clock,
) -> None:
    text = calls("abc", c='when = "b == `1`"\ntimeout = "1s"\noptional = true')
    upstream = ScriptedCaller({"/a": Reply(3.0), "/b": Reply(1.0, waits=1), "/c": Reply(0.5)})
    await compose(text, upstream)
    assert upstream.of("/c").context.deadline == 2.0


async def test_a_cancel_because_the_client_left_cuts_every_call_at_once(autojump_clock: trio.abc.Clock) -> None:
    compiled = plan(TWO.replace('path = "/b"', 'path = "/b/{a.id}"'))
    upstream, recorder = Scripted(answer(1, after=9)), Records()
    with trio.CancelScope() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, compiled, Inputs(), facts(), {"u": TransportCaller(upstream)}, recorder)
            await trio.testing.wait_all_tasks_blocked()
            left_at = trio.current_time()
            client.cancel(reason="client-gone")
    assert trio.current_time() == left_at
    assert upstream.in_flight == 0
    kinds = {event.outcome.call: event.outcome.failure.kind for event in recorder.calls if event.outcome.failure}
    assert kinds == {"a": Kind.CLIENT_GONE, "b": Kind.CLIENT_GONE}


@pytest.mark.parametrize("waits", [0, 1], ids=["the loop parks", "a call has a task"])
async def test_client_gone_cuts_all_calls_and_the_run_raises(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery, waits: int
) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    upstream, recorder, ways = ScriptedCaller({"/": Reply(9.0, waits=waits)}), Records(), []
    given = plan(calls("ab")), Inputs(), facts(), {"u": upstream}, recorder
    composition = PlanRun(*given, on_wait=ways.append, timers=timers)

    async def run_it() -> None:
        with pytest.raises(ClientGoneError):
            await composition.run()

    nursery.start_soon(run_it)
    await trio.testing.wait_all_tasks_blocked()
    assert len(timers) == (0 if waits else 1), "a scope has the deadline, or a timer"
    (leave,) = ways
    leave()
    assert [call.cancelled for call in upstream.calls] == ["client-gone", "client-gone"]
    assert [event.outcome.failure.kind for event in recorder.calls] == [Kind.CLIENT_GONE, Kind.CLIENT_GONE]
    await trio.testing.wait_all_tasks_blocked()
    assert not len(timers)


async def test_client_gone_before_the_first_wait_ends_the_composition(autojump_clock: trio.abc.Clock) -> None:
    upstream = ScriptedCaller({"/": Reply()})
    given = plan(calls("ab")), Inputs(), facts(), {"u": upstream}, Records()
    with pytest.raises(ClientGoneError):
        await PlanRun(*given, on_wait=lambda leave: leave()).run()
    assert [call.cancelled for call in upstream.calls] == ["client-gone", "client-gone"]


async def test_a_deadline_that_has_passed_starts_no_call(autojump_clock: trio.abc.Clock) -> None:
    upstream = ScriptedCaller({"/": Reply()})
    ran = await compose(calls("ab"), upstream, deadline=0.0)
    assert ran.kinds == {"a": Kind.TIMEOUT, "b": Kind.TIMEOUT}
    assert not upstream.calls


async def test_own_time_excludes_the_time_of_calls_under_way(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=1), "/b": answer(2, after=2)})
    assert ran.result.own_ms == pytest.approx(0, abs=1)


async def test_the_deadline_cuts_every_call_in_flight_as_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    for _ in range(10):  # trio's order of the two tasks is random
        ran = await compose(TWO + "optional = true\n", {"/a": answer(1, after=9), "/b": answer(2, after=9)})
        assert {outcome.failure.kind for outcome in ran.result.outcomes if outcome.failure} == {Kind.TIMEOUT}
        assert [call["name"] for call in ran.result.problem("r").document()["calls"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("spans", "own"),
    [
        pytest.param([], 10.0, id="no call"),
        pytest.param([(1, 9)], 2.0, id="one"),
        pytest.param([(1, 3), (1, 9), (2, 4)], 2.0, id="at once: the longest"),
        pytest.param([(1, 4), (4, 9)], 2.0, id="one after the other: both"),
        pytest.param([(1, 4), (5, 9)], 3.0, id="what lies between is our own"),
        pytest.param([(0, 2), (2, 4), (1, 8)], 3.0, id="a chain beside a longer call"),
        pytest.param([(0, 4), (4, 8), (1, 8)], 2.0, id="a longer chain beside a call"),
        pytest.param([(0, 6), (5, 10)], 4.0, id="what overlaps is counted once"),
    ],
)
def test_own_time_is_the_total_time_minus_the_longest_chain_of_calls(
    spans: list[tuple[float, float]], own: float
) -> None:
    outcomes = tuple(Outcome(f"c{n}", "value", started_at=start, ended_at=end) for n, (start, end) in enumerate(spans))
    assert own_time(0.0, 10.0, outcomes) == pytest.approx(own)
    assert own_time(0.0, 10.0, (*outcomes, Outcome("skipped", "skipped", ended_at=3.0))) == pytest.approx(own)
