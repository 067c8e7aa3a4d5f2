"""Hedges after a percentile: which latencies count, and a slow replica among fast ones."""

from __future__ import annotations

from random import Random

import pytest
import trio

from tests.support.upstream.scripted_upstream import HANGS, Scripted, Step, scripted
from umbel.core.failure_kinds import Kind
from umbel.policy.quantile import SAMPLES_MIN
from umbel.upstream import Hedge
from umbel.upstream.errors import BudgetSpent, ConnectFailed, Malformed, ReadTimedOut
from umbel.upstream.replicas.origin import Origin

P95 = Hedge("p95")


async def learn(upstream: Scripted, seconds: float) -> None:
    """Make enough calls for a percentile."""
    upstream.script.steps = [Step(seconds, 200)]
    for _ in range(SAMPLES_MIN):
        await upstream.call()
    upstream.script.made.clear()


def learned(upstream: Scripted) -> tuple[int, float | None]:
    """The number of attempts that count, and the percentile."""
    statistics = upstream.client.statistics().hedge.latencies[0.95]
    return statistics.samples, statistics.seconds


async def test_the_percentile_is_used_from_a_hundred_attempts_on(autojump_clock) -> None:
    async with scripted([Step(0.02, 200)], hedge=P95) as upstream:
        for _ in range(SAMPLES_MIN - 1):
            await upstream.call()
        upstream.script.steps = [*[Step(0.02, 200)] * 99, Step(0.5, 200), HANGS, Step(0.25, 200)]
        await upstream.call()
        assert len(upstream.script.made) == 100, "the hundredth call is not hedged yet, slow as it is"
        began = trio.current_time()
        await upstream.call()
        assert upstream.causes == ["first", "hedge"]
        assert 0.02 <= upstream.script.starts[-1] - began <= 0.021


async def test_an_overtaken_attempt_and_its_hedge_count_with_their_own_durations(autojump_clock) -> None:
    async with scripted([], hedge=P95) as upstream:
        await learn(upstream, 0.1)
        assert learned(upstream)[0] == 100
        upstream.script.steps = [HANGS, Step(0.01, 200)] * 8
        for number in range(8):
            began = trio.current_time()
            await upstream.call()
            assert len(upstream.script.made) == 2 * number + 2
            assert trio.current_time() - began > 0.11
        samples, seconds = learned(upstream)
        assert samples == 116
        # Without the overtaken attempts the percentile would have stayed or fallen.
        assert seconds is not None
        assert 0.11 <= seconds <= 0.125


async def test_a_hedge_that_was_cut_does_not_count(autojump_clock) -> None:
    async with scripted([], hedge=P95) as upstream:
        await learn(upstream, 0.1)
        upstream.script.steps = [Step(0.2, 200), HANGS]
        await upstream.call()
        assert upstream.kinds == [None, Kind.CANCELLED]
        assert learned(upstream)[0] == 101


async def test_timeouts_count_and_other_failures_do_not(autojump_clock) -> None:
    async with scripted([], hedge=P95) as upstream:
        await learn(upstream, 0.1)
        for outcome, more in (
            (Malformed("x"), 0),
            (ConnectFailed("x"), 0),
            (500, 0),
            (404, 1),
            (ReadTimedOut("x"), 1),
        ):
            before = learned(upstream)[0]
            upstream.script.steps = [Step(0.05, outcome)]
            await upstream.ends_as(outcome)
            assert learned(upstream)[0] - before == more, outcome
        before = learned(upstream)
        assert isinstance(await upstream.outcome(budget=0.0), BudgetSpent)
        assert learned(upstream) == before


@pytest.mark.parametrize(("deadline", "more"), [(1.0, 1), (10.0, 0)])
async def test_an_attempt_cut_from_outside_counts_only_for_the_deadline(
    deadline: float, more: int, autojump_clock
) -> None:
    async with scripted([], hedge=P95) as upstream:
        await learn(upstream, 0.1)
        upstream.script.steps = [HANGS]
        with trio.move_on_after(1.0):
            await upstream.call(budget=deadline)
        assert learned(upstream)[0] == 100 + more


async def test_with_a_fixed_delay_no_latency_is_counted(autojump_clock) -> None:
    async with scripted([Step(0.1, 200)], hedge=Hedge(1.0)) as upstream:
        await upstream.call()
        assert upstream.client.statistics().hedge.latencies == {}


class Replicas:
    """Answer after some 5 ms; replica ``b`` that much later."""

    def __init__(self, late_by: float) -> None:
        self._rng = Random(7)
        self.late_by = late_by

    def __call__(self, origin: Origin) -> Step:
        return Step(self.late_by * (origin.host == "b") + self._rng.lognormvariate(-5.3, 0.3), 200)


URLS = ["http://a", "http://b"]


async def times(upstream: Scripted, rate: float, calls: int) -> list[float]:
    """The duration of each call, in the order of their beginnings."""
    rng = Random(7)
    took = [0.0] * calls

    async def call(number: int) -> None:
        began = trio.current_time()
        await upstream.call(budget=10.0)
        took[number] = trio.current_time() - began

    async with trio.open_nursery() as nursery:
        for number in range(calls):
            nursery.start_soon(call, number)
            await trio.sleep(rng.expovariate(rate))
    return took


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


WARM_UP = 200
"""Number of calls after which the fast one of two replicas has the hundred attempts of a percentile."""


@pytest.mark.parametrize(
    ("rate", "calls", "policy"), [(20, 3000, "p2c"), (60, 6000, "p2c"), (1000, 3000, "p2c"), (20, 1500, "round_robin")]
)
async def test_one_slow_replica_of_two_does_not_show_in_the_p99_from_a_cold_start_on(
    rate: float, calls: int, policy: str, autojump_clock
) -> None:
    late = Replicas(0.5)
    async with scripted(late, URLS, balance=policy, rng=Random(7)) as plain:
        without = p99(await times(plain, rate, 600))
    assert without > 0.5
    async with scripted(late, URLS, balance=policy, rng=Random(7), hedge=P95) as hedged:
        took = (await times(hedged, rate, calls))[WARM_UP:]
        # In each part of five hundred calls, so that the effect begins at once and lasts.
        stretches = [p99(took[begin : begin + 500]) for begin in range(0, len(took) - 499, 500)]
        assert max(stretches) <= without / 3
        (seconds,) = [each.seconds for each in hedged.client.statistics().hedge.latencies.values()]
        assert seconds is not None
        assert seconds < 0.02


async def test_a_replica_that_becomes_slow_later_does_not_show_in_the_p99(autojump_clock) -> None:
    replicas = Replicas(0.0)
    async with scripted(replicas, URLS, rng=Random(7), hedge=P95) as upstream:

        async def shares() -> tuple[int, int]:
            """The number of attempts of each replica for eight hundred calls."""
            before = [each.taken for each in upstream.client.statistics().balance.replicas]
            await times(upstream, 200, 800)
            now = upstream.client.statistics().balance.replicas
            quick, late = (each.taken - was for each, was in zip(now, before, strict=True))
            return quick, late

        await times(upstream, 200, 400)
        replicas.late_by = 0.5
        assert p99(await times(upstream, 200, 800)) < 0.5 / 3
        # Overtaken again and again, it gets less than a tenth of the calls, though each is cut as soon as the other
        # has answered, so that it never has much in flight.
        quick, late = await shares()
        assert late < quick / 8
        # After the replica is fast again, it gets its share again.
        replicas.late_by = 0.0
        await times(upstream, 200, 1600)
        one, other = await shares()
        assert other > one / 2
