from __future__ import annotations

import gc
from random import Random

import httpx
import pytest
import trio
import trio.testing

from tests.support.scripts import OpenStream, Script, Step, Ticket, call_facts, call_request
from tests.support.wires import MemoryDial, ServerEnd
from umbel.errors import NotRunningError
from umbel.kinds import Kind
from umbel.model import FACTS
from umbel.policy.budget import Budget, BudgetStatistics
from umbel.policy.hedge import HEDGE, HedgeRules
from umbel.policy.latency import SAMPLES_MIN
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance
from umbel.upstream.body import Body
from umbel.upstream.ending import LOST
from umbel.upstream.errors import BudgetSpent, ConnectFailed, Malformed, ReadTimedOut
from umbel.upstream.hedge import Hedge
from umbel.upstream.pool import Pool
from umbel.upstream.retry import Retry
from umbel.upstream.state import opened

HANGS = Step(1000.0, 200)


def fates(script: Script) -> list[str]:
    """What became of each attempt: its reason if it was cancelled."""
    return [str(each.reason) if each.cancelled else "ended" for each in script.made]


async def test_a_call_that_ends_in_time_is_made_once(autojump_clock) -> None:
    script = Script([Step(0.04, 200)])
    async with Hedge(script, after=0.05) as layer:
        assert (await layer.handle_async_request(call_request())).content == b"1"
        await trio.sleep(1)
        assert (len(script.made), trio.current_time()) == (1, 1.04)
        statistics = layer.statistics()
        assert (statistics.pending, statistics.hedges, statistics.won) == (0, 0, 0)


async def test_a_slow_call_gets_another_attempt_and_the_quicker_one_answers(autojump_clock) -> None:
    script = Script([HANGS, Step(0.01, 200)])
    async with Hedge(script, after=0.05) as layer:
        request = call_request()
        with opened(request) as state:
            response = await layer.handle_async_request(request)
            assert state.hedged
        assert (response.content, trio.current_time()) == (b"2", 0.060000000000000005)
        assert (script.starts, script.causes) == ([0.0, 0.05], ["first", "hedge"])
        assert (fates(script), script.in_flight) == ([LOST, "ended"], 0)
        assert (layer.statistics().hedges, layer.statistics().won) == (1, 1)


async def test_the_first_attempt_may_still_win(autojump_clock) -> None:
    script = Script([Step(0.06, 200), HANGS])
    async with Hedge(script, after=0.05) as layer:
        response = await layer.handle_async_request(call_request())
        assert (response.content, trio.current_time()) == (b"2", 0.06), "content tells how many were begun"
        assert fates(script) == ["ended", LOST]
        assert (layer.statistics().hedges, layer.statistics().won) == (1, 0)


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_loser_is_cut_within_one_turn_of_the_scheduler(winner: int, autojump_clock) -> None:
    script = Script([Step(0.06, 200), HANGS] if winner == 0 else [HANGS, Step(0.01, 200)])
    trio.lowlevel.add_instrument(script.turns)
    try:
        async with Hedge(script, after=0.05) as layer:
            await layer.handle_async_request(call_request())
    finally:
        trio.lowlevel.remove_instrument(script.turns)
    assert script.made[1 - winner].turn - script.made[winner].turn <= 1


async def test_as_many_hedges_as_allowed_each_a_while_after_the_one_before(autojump_clock) -> None:
    script = Script([HANGS, HANGS, HANGS, Step(0.5, 200), HANGS])
    async with Hedge(script, after=0.125, max=3) as layer:
        await layer.handle_async_request(call_request())
        assert (script.starts, trio.current_time()) == ([0.0, 0.125, 0.25, 0.375], 0.875)
        assert fates(script) == [LOST, LOST, LOST, "ended"]


# Failures


async def test_an_early_failure_starts_the_hedge_at_once(autojump_clock) -> None:
    for outcome in (ConnectFailed("no"), 502, 503, 504):
        script = Script([Step(0.01, outcome), Step(0.02, 200)])
        async with Hedge(script, after=10.0) as layer:
            began = trio.current_time()
            response = await layer.handle_async_request(call_request())
            assert (response.status_code, round(trio.current_time() - began, 9)) == (200, 0.03)
            assert script.causes == ["first", "hedge"]
            assert layer.statistics().pending == 0


async def test_an_early_failure_starts_it_though_no_percentile_is_known(autojump_clock) -> None:
    script = Script([Step(0.01, 503), Step(0.02, 200)])
    async with Hedge(script, after="p95") as layer:
        assert (await layer.handle_async_request(call_request())).status_code == 200


async def test_a_failure_that_another_attempt_would_meet_again_stands_at_once(autojump_clock) -> None:
    for outcome in (Malformed("x"), 500, ReadTimedOut("x")):
        script = Script([Step(0.01, outcome), Step(0.0, 200)])
        async with Hedge(script, after=10.0) as layer:
            await _fails(layer, outcome)
        assert len(script.made) == 1


async def _fails(layer: httpx.AsyncBaseTransport, outcome: int | Exception, **more: object) -> None:
    if isinstance(outcome, int):
        assert (await layer.handle_async_request(call_request(**more))).status_code == outcome
    else:
        with pytest.raises(type(outcome)) as caught:
            await layer.handle_async_request(call_request(**more))
        assert caught.value is outcome


async def test_no_failure_wins_over_an_attempt_under_way(autojump_clock) -> None:
    for outcome in (Malformed("x"), 500, 503, ConnectFailed("x")):
        script = Script([Step(0.06, outcome), Step(1.0, 200)])
        async with Hedge(script, after=0.05) as layer:
            assert (await layer.handle_async_request(call_request())).status_code == 200
        script = Script([Step(1.0, 200), Step(0.01, outcome)])
        async with Hedge(script, after=0.05) as layer:
            assert (await layer.handle_async_request(call_request())).status_code == 200
        assert len(script.made) == 2


@pytest.mark.parametrize("first_is_first", [True, False])
@pytest.mark.parametrize("outcome", [503, 500, ConnectFailed("x"), Malformed("x")], ids=repr)
async def test_if_all_fail_it_is_as_if_there_had_been_no_hedge(
    outcome: int | Exception, first_is_first: bool, autojump_clock
) -> None:
    script = Script([Step(0.06 if first_is_first else 1.0, outcome), Step(0.1, Malformed("the hedge's"))])
    async with Hedge(script, after=0.05) as layer:
        await _fails(layer, outcome)
    assert len(script.made) == 2


async def test_an_upstream_that_asks_for_a_pause_gets_no_hedge_at_once(autojump_clock) -> None:
    script = Script([Step(0.01, 503, {"retry-after": "1"}), Step(0.0, 200)])
    async with Hedge(script, after=10.0) as layer:
        await _fails(layer, 503)
    assert len(script.made) == 1


@pytest.mark.parametrize("first", [True, False])
async def test_a_bug_below_is_raised_bare_and_ends_every_attempt(first: bool, autojump_clock) -> None:
    bug = Step(0.06 if first else 0.01, RuntimeError("a bug"))
    script = Script([bug, HANGS] if first else [HANGS, bug])
    async with Hedge(script, after=0.05) as layer:
        with pytest.raises(RuntimeError, match="a bug"):
            await layer.handle_async_request(call_request())
    assert (sorted(fates(script)), script.in_flight) == (["ended", LOST], 0)


# What is hedged


@pytest.mark.parametrize(
    ("method", "more", "attempts"),
    [
        ("GET", {}, 2),
        ("PUT", {"content": b"whole"}, 2),
        ("POST", {"content": b"whole"}, 1),
        ("POST", {"content": b"whole", "headers": {"idempotency-key": "k"}}, 2),
    ],
)
async def test_only_what_may_be_repeated_is_hedged(method: str, more: dict, attempts: int, autojump_clock) -> None:
    script = Script([Step(1.0, 200)])
    async with Hedge(script, after=0.05) as layer:
        await layer.handle_async_request(call_request(method, **more))
    assert len(script.made) == attempts


async def test_a_stream_passes_as_it_is(autojump_clock) -> None:
    script = Script([Step(1.0, 200, open=True)])
    request = call_request()
    request.extensions["stream"] = True
    async with Hedge(script, after=0.05) as layer:
        response = await layer.handle_async_request(request)
    assert (len(script.made), response.is_closed) == (1, False)


async def test_an_open_response_is_read_whole_before_it_is_judged(autojump_clock) -> None:
    script = Script([Step(0.0, 200, open=True)])
    async with Hedge(script, after=0.05) as layer:
        response = await layer.handle_async_request(call_request())
    assert (response.content, script.streams[0].closed) == (b"body", True)


async def test_a_body_that_comes_too_slowly_is_overtaken_and_closed(autojump_clock) -> None:
    class Slow(OpenStream):
        async def __aiter__(self):
            yield b"some"
            await trio.sleep(1000)

    streams = [Slow(), OpenStream()]
    given = iter(streams)
    async with Hedge(httpx.MockTransport(lambda request: httpx.Response(200, stream=next(given))), after=0.05) as layer:
        response = await layer.handle_async_request(call_request())
        assert (response.content, trio.current_time()) == (b"body", 0.05)
        assert [stream.closed for stream in streams] == [True, True]


async def test_a_calls_own_rules_go_before_the_layers(autojump_clock) -> None:
    for own, starts in (
        (HedgeRules(seconds=0.25), [0.0, 0.25]),
        (HedgeRules(seconds=0.25, max=0), [0.0]),
    ):
        script = Script([Step(1.0, 200)])
        request = call_request()
        request.extensions[HEDGE] = own
        async with Hedge(script, after=0.5) as layer:
            began = trio.current_time()
            await layer.handle_async_request(request)
        assert [at - began for at in script.starts] == starts


async def test_no_hedge_is_made_that_would_begin_at_the_deadline_or_later(autojump_clock) -> None:
    for deadline, attempts in ((0.05, 1), (0.06, 2)):
        script = Script([Step(0.055, 200)])
        async with Hedge(script, after=0.05) as layer:
            await layer.handle_async_request(call_request(deadline=deadline))
        assert len(script.made) == attempts


async def test_with_the_breaker_open_there_is_no_hedge(autojump_clock) -> None:
    for step in (Step(1.0, 200), Step(0.04, 503)):
        script = Script([step])
        request = call_request()
        async with Hedge(script, after=0.05) as layer:
            with opened(request) as state:
                state.ticket = Ticket()
                assert (await layer.handle_async_request(request)).status_code == step.outcome
                assert not state.hedged
        assert len(script.made) == 1


async def test_over_the_budget_the_first_attempt_is_waited_for(autojump_clock) -> None:
    budget = Budget(0.0, 2)
    script = Script([Step(1.0, 200)])
    async with Hedge(script, after=0.25, budget=budget) as layer, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(layer.handle_async_request, call_request())
        await trio.sleep(0.5)
        assert (len(script.made), layer.statistics().hedges) == (12, 2)
        assert budget.statistics() == BudgetStatistics(active=10, extra=2, limit=2, denied=8)
    assert (budget.statistics().active, budget.statistics().extra) == (0, 0)


async def test_retries_and_hedges_share_a_budget_and_count_a_call_once(autojump_clock) -> None:
    budget = Budget(0.0, 1)
    script = Script([Step(0.0, 503), Step(0.0, 503), Step(0.0, 200)])
    async with Retry(Hedge(script, after=10.0, budget=budget), budget=budget) as layer:
        # The hedge takes the one place and gives it back, then the retry has it: the hedge of the retry has none.
        assert (await layer.handle_async_request(call_request())).status_code == 200
        assert script.causes == ["first", "hedge", "retry"]
    assert budget.statistics() == BudgetStatistics(active=0, extra=0, limit=1, denied=0)


# The percentile


async def _learn(layer: Hedge, script: Script, seconds: float) -> None:
    script.steps = [Step(seconds, 200)]
    for _ in range(SAMPLES_MIN):
        await layer.handle_async_request(call_request())
    script.made.clear()


def _learned(layer: Hedge, quantile: float = 0.95) -> tuple[int, float | None]:
    statistics = layer.statistics().latencies["http://upstream"][quantile]
    return statistics.samples, statistics.seconds


async def test_a_percentile_is_used_from_a_hundred_calls_on(autojump_clock) -> None:
    script = Script([])
    async with Hedge(script, after="p95") as layer:
        script.steps = [Step(0.02, 200)]
        for _ in range(SAMPLES_MIN - 1):
            await layer.handle_async_request(call_request())
        script.steps = [*[Step(0.02, 200)] * 99, Step(0.5, 200), HANGS, Step(0.25, 200)]
        await layer.handle_async_request(call_request())
        assert len(script.made) == 100, "the hundredth call is not hedged yet, slow as it is"
        began = trio.current_time()
        await layer.handle_async_request(call_request())
        assert script.causes[-2:] == ["first", "hedge"]
        assert 0.02 <= script.starts[-1] - began <= 0.021


async def test_a_hedged_call_is_learned_once_with_its_time_from_the_first_attempt_on(autojump_clock) -> None:
    script = Script([])
    async with Hedge(script, after="p95") as layer:
        await _learn(layer, script, 0.1)
        assert _learned(layer)[0] == 100
        script.steps = [HANGS, Step(0.01, 200)] * 8
        for number in range(8):
            began = trio.current_time()
            await layer.handle_async_request(call_request())
            assert len(script.made) == 2 * number + 2
            assert trio.current_time() - began > 0.11
        samples, seconds = _learned(layer)
        assert samples == 108
        # With the hedges' own 10 ms, and without those that lost, it would have stayed or sunk.
        assert seconds is not None and 0.11 <= seconds <= 0.125


async def test_failures_are_not_learned_but_timeouts_are(autojump_clock) -> None:
    script = Script([])
    async with Hedge(script, after="p95", max=1) as layer:
        await _learn(layer, script, 0.1)
        for outcome, learned in (
            (Malformed("x"), 0),
            (ConnectFailed("x"), 0),
            (500, 0),
            (BudgetSpent("x"), 0),
            (404, 1),
            (ReadTimedOut("x"), 1),
        ):
            before = _learned(layer)[0]
            script.steps = [Step(0.0 if isinstance(outcome, BudgetSpent) else 0.05, outcome)]
            await _fails(layer, outcome)
            assert _learned(layer)[0] - before == learned, outcome


@pytest.mark.parametrize(("deadline", "cut_at", "learned"), [(1.0, 1.0, 1), (10.0, 1.0, 0)])
async def test_a_cut_call_is_learned_only_if_its_deadline_cut_it(
    deadline: float, cut_at: float, learned: int, autojump_clock
) -> None:
    script = Script([])
    async with Hedge(script, after="p95") as layer:
        await _learn(layer, script, 0.1)
        script.steps = [HANGS]
        with trio.move_on_after(cut_at):
            await layer.handle_async_request(call_request(deadline=deadline))
        assert _learned(layer)[0] == 100 + learned


async def test_after_a_duration_nothing_is_learned(autojump_clock) -> None:
    script = Script([Step(0.1, 200)])
    async with Hedge(script, after=1.0) as layer:
        await layer.handle_async_request(call_request())
        assert layer.statistics().latencies == {"http://upstream": {}}


# Cancelled from outside


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


# As a layer


async def test_outside_of_its_block_it_hedges_nothing_and_says_so() -> None:
    layer = Hedge(Script([Step(0.0, 200)]), after=1.0)
    with pytest.raises(NotRunningError, match="outside of its `async with`"):
        await layer.handle_async_request(call_request())


async def test_any_httpx_user_can_take_it_alone_and_enter_it_twice(autojump_clock) -> None:
    bodies = iter([1000.0, 0.0])

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(next(bodies))
        return httpx.Response(200, json={"a": 1})

    async with (
        Hedge(httpx.MockTransport(answer), after=0.05) as layer,
        httpx.AsyncClient(transport=layer, timeout=None) as client,
    ):
        assert (await client.get("http://x/")).json() == {"a": 1}


async def test_over_a_pool_the_losers_connection_is_closed_and_the_winners_is_kept(
    nursery: trio.Nursery, autojump_clock
) -> None:
    open_requests = 0
    served = 0

    async def serve(end: ServerEnd) -> None:
        nonlocal open_requests, served
        served += 1
        slow = served == 1
        while await end.receive_some():
            open_requests += 1
            try:
                if slow:
                    await end.receive_some()  # Nothing more comes but the end.
                    return
                await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            finally:
                open_requests -= 1

    dial = MemoryDial(nursery, serve)
    async with Hedge(Body(Pool(dial=dial)), after=0.05) as layer:
        response = await layer.handle_async_request(call_request())
        assert response.content == b"ok"
        assert [wire.closed for wire in dial.wires] == [True, False], "closed when the call returns, not later"
        await trio.testing.wait_all_tasks_blocked()
        assert open_requests == 0


async def test_a_failed_call_leaves_no_garbage_behind(autojump_clock) -> None:
    async with Hedge(Script([Step(0.0, Malformed("no"))]), after=1.0) as layer:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                with pytest.raises(Malformed):
                    await layer.handle_async_request(call_request())
            gc.collect()
            assert [each for each in gc.garbage if isinstance(each, Malformed)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_what_is_no_time_is_refused() -> None:
    for more in ({"after": "95"}, {"after": -1.0}, {"after": 1.0, "max": -1}):
        with pytest.raises(ValueError, match=r"no percentile|not negative"):
            Hedge(Script([HANGS]), **more)


# With the layers beneath and above


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_every_attempt_of_a_call_takes_another_replica(policy: str, autojump_clock) -> None:
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) == 1:
            raise ConnectFailed("no")
        if len(asked) == 2:
            return httpx.Response(503)
        await trio.sleep(1000.0 if len(asked) == 3 else 0.01)
        return httpx.Response(200)

    replicas = ["http://a", "http://b", "http://c", "http://d"]
    budget = Budget()
    balance = Balance(Attempt(httpx.MockTransport(answer)), replicas, policy=policy)
    facts = call_facts(100.0)
    async with Retry(Hedge(balance, after=1.0, budget=budget), budget=budget) as layer:
        request = httpx.Request("GET", "http://upstream/", extensions={FACTS: facts, "target": b"/"})
        assert (await layer.handle_async_request(request)).status_code == 200
    assert sorted(asked) == ["a", "b", "c", "d"]
    recorded = [(each.cause, each.kind, each.status) for each in facts.attempts]
    assert recorded == [
        ("first", Kind.CONNECT, None),
        ("hedge", None, 503),
        ("hedge", None, 200),
        ("retry", Kind.CANCELLED, None),
    ]


@pytest.mark.parametrize("hedges", [0, 1], ids=["without", "with"])
async def test_a_replica_that_becomes_slow_shows_in_the_slowest_calls_only_without_hedges(
    hedges: int, autojump_clock
) -> None:
    rng = Random(7)
    slower = 0.0

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(slower * (request.url.host == "b") + rng.lognormvariate(-4.6, 0.3))  # About 10 ms.
        return httpx.Response(200)

    async def call(layer: httpx.AsyncBaseTransport) -> None:
        began = trio.current_time()
        await layer.handle_async_request(call_request(deadline=10.0))
        took.append(trio.current_time() - began)

    balance = Balance(Attempt(httpx.MockTransport(answer)), ["http://a", "http://b"], rng=Random(7))
    took: list[float] = []
    async with Hedge(balance, after="p95", max=hedges) as layer, trio.open_nursery() as nursery:
        for number in range(1200):
            if number == 400:
                slower = 0.5
                took.clear()
            nursery.start_soon(call, layer)
            await trio.sleep(rng.expovariate(200))
    p99 = sorted(took)[len(took) * 99 // 100]
    assert p99 < 0.5 / 3 if hedges else p99 > 0.5
