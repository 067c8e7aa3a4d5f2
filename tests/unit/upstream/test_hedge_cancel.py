"""A hedged call that is cut from outside leaves no attempt behind."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.scripts import HANGS, Script, Step, call_facts, call_request, fates
from umbel.kinds import Kind
from umbel.model import FACTS
from umbel.policy.budget import Budget
from umbel.upstream.attempt import Attempt
from umbel.upstream.hedge import Hedge


@pytest.mark.parametrize("reason", ["client-gone", "a sibling failed", None])
async def test_a_cancel_from_outside_reaches_all_attempts_with_its_reason(reason: str | None, autojump_clock) -> None:
    script = Script([HANGS])
    budget = Budget()
    async with Hedge(script, after=0.25, max=2, budget=budget) as layer, trio.open_nursery() as nursery:
        nursery.start_soon(layer.handle_async_request, call_request())
        await trio.sleep(0.6)
        assert script.in_flight == 3
        nursery.cancel_scope.cancel(reason=reason)
    assert fates(script) == [str(reason)] * 3
    assert {each.ended_at for each in script.made} == {0.6}
    assert (budget.statistics().active, budget.statistics().extra) == (0, 0)


async def test_a_hedge_that_is_due_in_the_moment_of_the_cancel_does_not_hold_the_call(autojump_clock) -> None:
    script = Script([])
    async with Hedge(script, after=0.25, max=9) as layer:
        for number in range(1, 31):  # Which of the two comes first is the scheduler's dice.
            script.made.clear()
            script.steps = [Step(0.0, 503), HANGS]
            with trio.CancelScope(deadline=number * 0.5):
                await layer.handle_async_request(call_request())
            assert trio.current_time() == number * 0.5


async def test_each_attempt_is_recorded_as_what_it_was(autojump_clock) -> None:
    script = Script([HANGS, Step(0.01, 200)])
    facts = call_facts(10.0)
    async with Hedge(Attempt(script), after=0.05) as layer:
        request = httpx.Request("GET", "http://upstream/", extensions={FACTS: facts})
        await layer.handle_async_request(request)
    recorded = {each.cause: (each.kind, each.status) for each in facts.attempts}
    assert recorded == {"first": (Kind.CANCELLED, None), "hedge": (None, 200)}


async def test_at_the_deadline_every_attempt_is_one_that_timed_out(autojump_clock) -> None:
    facts = call_facts(1.0)
    async with Hedge(Attempt(Script([HANGS])), after=0.25) as layer:
        with trio.CancelScope(deadline=1.0):
            request = httpx.Request("GET", "http://upstream/", extensions={FACTS: facts})
            await layer.handle_async_request(request)
    assert [each.kind for each in facts.attempts] == [Kind.TIMEOUT, Kind.TIMEOUT]


async def test_no_attempt_outlives_a_call_that_cannot_be_hurried(autojump_clock) -> None:
    class Stubborn(Script):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            try:
                return await super().handle_async_request(request)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)

    for steps in ([HANGS, Step(0.0, 200)], [Step(0.25, 200), HANGS], [HANGS, HANGS]):
        script = Stubborn(steps)
        async with Hedge(script, after=0.25) as layer:
            with trio.move_on_after(5):
                await layer.handle_async_request(call_request())
            tasks = trio.lowlevel.current_task().child_nurseries[-1].child_tasks
            assert (script.in_flight, len(tasks)) == (0, 1), "only the alarm is left"


async def test_the_layer_that_closes_ends_hedges_but_not_calls(autojump_clock) -> None:
    script = Script([Step(0.01, 503), HANGS])
    answers: list[int] = []

    async def call(layer: Hedge) -> None:
        answers.append((await layer.handle_async_request(call_request())).status_code)

    async with trio.open_nursery() as nursery, Hedge(script, after=10.0) as layer:
        nursery.start_soon(call, layer)
        await trio.sleep(1)
    assert (answers, script.in_flight) == ([503], 0)
