"""Failover: a replica that dies under load fails no call, with any retry budget."""

from __future__ import annotations

from random import Random

import pytest
import trio

from tests.support.upstream.scripted_upstream import Scripted, Step, scripted
from umbel.policy.replicas.ejection import EjectionRules
from umbel.policy.retry_budget import Budget
from umbel.upstream import BalanceStatistics, Hedge, Retry
from umbel.upstream.errors import ConnectFailed
from umbel.upstream.replicas.origin import Origin

RATE = 200
"""Calls a second."""
URLS = ["http://a", "http://b"]


class Hosts:
    """Replicas that answer after ``latency``; one that is killed resets what is in flight, and refuses all others."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.dead: set[str] = set()

    def __call__(self, origin: Origin) -> Step:
        return Step(0.0, ConnectFailed("refused")) if origin.host in self.dead else Step(self.latency, 200)

    def kill(self, upstream: Scripted, host: str) -> None:
        self.dead.add(host)
        for made in upstream.script.made:
            if made.host == host and made.stream is not None and made.closed_at is None:
                made.stream.reset()


async def load(upstream: Scripted, count: int) -> int:
    """Calls at a steady rate; how many of them failed."""
    failed = 0

    async def call() -> None:
        nonlocal failed
        outcome = await upstream.outcome()
        failed += isinstance(outcome, Exception)

    async with trio.open_nursery() as calls:
        for _ in range(count):
            calls.start_soon(call)
            await trio.sleep(1 / RATE)
    return failed


def balance(upstream: Scripted) -> BalanceStatistics:
    return upstream.client.statistics().balance


@pytest.mark.parametrize("hedged", [False, True])
@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
@pytest.mark.parametrize("latency", [0.001, 0.005, 0.02, 0.05, 0.5])
async def test_the_death_of_one_of_two_replicas_fails_no_call(
    autojump_clock, latency: float, policy: str, hedged: bool
) -> None:
    hosts = Hosts(latency)
    rules = {"retry": Retry(), "hedge": Hedge("p95") if hedged else None, "ejection": EjectionRules()}
    async with (
        scripted(hosts, URLS, balance=policy, rng=Random(1), max_concurrency=1000, **rules) as upstream,
        trio.open_nursery() as nursery,
    ):

        async def kill_later() -> None:
            await trio.sleep(1.0 + latency)
            hosts.kill(upstream, "b")

        nursery.start_soon(kill_later)
        assert await load(upstream, 2 * RATE + int(latency * RATE)) == 0
        assert upstream.client.statistics().budget.denied == 0
        statistics = balance(upstream)
        assert statistics.replicas[1].ejected_for > 0
        # The attempts in flight there, and few that came to it later.
        assert statistics.failovers <= statistics.replicas[1].failed <= RATE * latency + 10


async def test_with_all_replicas_dead_the_repetitions_stay_within_the_budget(autojump_clock) -> None:
    hosts = Hosts(0.5)
    # Without ejection, so that only the budget bounds the repetitions.
    async with (
        scripted(hosts, URLS, retry=Retry(), rng=Random(1), max_concurrency=1000) as upstream,
        trio.open_nursery() as nursery,
    ):

        async def kill_later() -> None:
            await trio.sleep(1.0)
            hosts.kill(upstream, "a")
            hosts.kill(upstream, "b")

        nursery.start_soon(kill_later)
        assert await load(upstream, 3 * RATE) > RATE
        # When the first replica failed, the other one was not failing yet.
        before = balance(upstream).failovers
        assert before <= 0.5 * RATE + 10
        await load(upstream, 5 * RATE)
        assert balance(upstream).failovers - before <= 10


async def test_retries_after_occasional_resets_are_charged_to_the_budget(autojump_clock) -> None:
    """Occasional resets: the failovers of a replica are granted once in ten seconds."""
    steps = [Step(0.02, b""), Step(0.02, 200)] * (9 * RATE)
    rules = {"retry": Retry(), "budget": Budget(0, 0), "ejection": EjectionRules(failures=10**6)}
    async with scripted(steps, URLS, rng=Random(1), **rules) as upstream:
        failed = await load(upstream, 9 * RATE)
        # Once for each of the two replicas: at least five, at most the attempts in flight there.
        assert 0 < balance(upstream).failovers <= 20
        assert failed >= 9 * RATE / 2 - 20
