"""Hedges after a percentile: what it is learned from, and that a slow replica does not spoil it."""

from __future__ import annotations

from random import Random

import httpx
import pytest
import trio
import trio.testing

from tests.support.layers import complete
from tests.support.scripts import HANGS, Script, Step, call_request, fails, fates
from umbel.policy.latency import SAMPLES_MIN
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance, PolicyName
from umbel.upstream.ending import LOST
from umbel.upstream.errors import BudgetSpent, ConnectFailed, Malformed, ReadTimedOut
from umbel.upstream.hedge import Hedge


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


async def test_an_attempt_that_was_overtaken_is_learned_with_its_age_and_the_hedge_with_its_own(autojump_clock) -> None:
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
        assert samples == 116
        # Without those that were overtaken it would have stayed or sunk.
        assert seconds is not None and 0.11 <= seconds <= 0.125


async def test_of_a_hedge_that_was_cut_nothing_is_learned(autojump_clock) -> None:
    script = Script([])
    async with Hedge(script, after="p95") as layer:
        await _learn(layer, script, 0.1)
        script.steps = [Step(0.2, 200), HANGS]
        await layer.handle_async_request(call_request())
        assert fates(script) == ["ended", LOST]
        assert _learned(layer)[0] == 101


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
            await fails(layer, outcome)
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


class Replicas(httpx.AsyncBaseTransport):
    """Answer after some 5 ms; the one that is ``late`` that much later."""

    def __init__(self, late: str, by: float = 0.5) -> None:
        self._rng = Random(7)
        self._late = late
        self.by = by

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        late = self.by * (request.url.host == self._late)
        await trio.sleep(late + self._rng.lognormvariate(-5.3, 0.3))
        return complete()


async def _times(layer: httpx.AsyncBaseTransport, rate: float, calls: int) -> list[float]:
    """How long each call took, in the order of their beginnings."""
    rng = Random(7)
    took = [0.0] * calls

    async def call(number: int) -> None:
        began = trio.current_time()
        await layer.handle_async_request(call_request(deadline=10.0))
        took[number] = trio.current_time() - began

    async with trio.open_nursery() as nursery:
        for number in range(calls):
            nursery.start_soon(call, number)
            await trio.sleep(rng.expovariate(rate))
    return took


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


WARM_UP = 200
"""Calls until the quick one of two replicas has surely had the hundred that a percentile wants."""


@pytest.mark.parametrize(
    ("rate", "calls", "policy"), [(20, 3000, "p2c"), (60, 6000, "p2c"), (1000, 3000, "p2c"), (20, 1500, "round_robin")]
)
async def test_one_late_replica_of_two_shows_in_no_p99_from_a_cold_start_on_and_for_long(
    rate: float, calls: int, policy: PolicyName, autojump_clock
) -> None:
    def balance() -> Balance:
        return Balance(Replicas("b"), ["http://a", "http://b"], policy=policy, rng=Random(7))

    without = _p99(await _times(balance(), rate, 600))
    assert without > 0.5
    async with Hedge(balance(), after="p95") as layer:
        times = (await _times(layer, rate, calls))[WARM_UP:]
        # In each stretch of five hundred, so that it neither begins late nor fades.
        stretches = [_p99(times[begin : begin + 500]) for begin in range(0, len(times) - 499, 500)]
        assert max(stretches) <= without / 3
        (seconds,) = [each.seconds for each in layer.statistics().latencies["http://upstream"].values()]
        assert seconds is not None and seconds < 0.02


async def test_a_replica_that_becomes_late_after_a_while_shows_in_no_p99_either(autojump_clock) -> None:
    replicas = Replicas("b", by=0.0)
    balance = Balance(Attempt(replicas), ["http://a", "http://b"], rng=Random(7))
    async with Hedge(balance, after="p95") as layer:
        await _times(layer, 200, 400)
        replicas.by = 0.5
        assert _p99(await _times(layer, 200, 800)) < 0.5 / 3
        # Overtaken again and again, it gets less than a tenth of the calls, though each is cut as soon as the other
        # has answered, so that it never has much in flight.
        before = [each.taken for each in balance.statistics().replicas]
        await _times(layer, 200, 800)
        quick, late = (each.taken - was for each, was in zip(balance.statistics().replicas, before, strict=True))
        assert late < quick / 8
        # And once it is well again it is found out.
        replicas.by = 0.0
        await _times(layer, 200, 1600)
        before = [each.taken for each in balance.statistics().replicas]
        await _times(layer, 200, 800)
        one, other = (each.taken - was for each, was in zip(balance.statistics().replicas, before, strict=True))
        assert other > one / 2
