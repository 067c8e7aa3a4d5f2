"""What starts a hedge, what it is started for, and who wins."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.scripts import HANGS, OpenStream, Script, Step, Ticket, call_request, fails, fates
from umbel.policy.budget import Budget, BudgetStatistics
from umbel.policy.hedge import HEDGE, HedgeRules
from umbel.upstream.ending import LOST
from umbel.upstream.errors import ConnectFailed, Malformed, ReadTimedOut
from umbel.upstream.hedge import Hedge
from umbel.upstream.retry import Retry
from umbel.upstream.state import opened


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
        request, state = opened(request)
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
            await fails(layer, outcome)
        assert len(script.made) == 1


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
        await fails(layer, outcome)
    assert len(script.made) == 2


async def test_an_upstream_that_asks_for_a_pause_gets_no_hedge_at_once(autojump_clock) -> None:
    script = Script([Step(0.01, 503, {"retry-after": "1"}), Step(0.0, 200)])
    async with Hedge(script, after=10.0) as layer:
        await fails(layer, 503)
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
            request, state = opened(request)
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
