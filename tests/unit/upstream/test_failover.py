"""A replica that dies under load: what it takes with it is made again elsewhere, and no budget stands in the way."""

from __future__ import annotations

import random

import httpx
import pytest
import trio

from tests.support.layers import asked, complete
from umbel.policy.budget import Budget
from umbel.policy.ejection import EjectionRules
from umbel.upstream.balance import Balance, PolicyName
from umbel.upstream.errors import ConnectFailed, ConnectionReset
from umbel.upstream.hedge import Hedge
from umbel.upstream.origin import REPLICA
from umbel.upstream.retry import Retry

RATE = 200
"""Calls a second."""


class Hosts(httpx.AsyncBaseTransport):
    """Replicas that answer after ``latency``, and one after the other are killed: what is in flight there is reset."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.deaths: dict[str, trio.Event] = {}

    def kill(self, name: str) -> None:
        self.deaths.setdefault(name, trio.Event()).set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        death = self.deaths.setdefault(request.extensions[REPLICA].name, trio.Event())
        if death.is_set():
            await trio.lowlevel.checkpoint()
            raise ConnectFailed("refused")
        with trio.move_on_after(self.latency):
            await death.wait()
            raise ConnectionReset("killed", untouched=True)
        return complete()


class Load:
    """Calls at a steady rate, and how many of them failed."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.failed = 0

    async def call(self) -> None:
        try:
            await self.transport.handle_async_request(asked())
        except httpx.TransportError:
            self.failed += 1

    async def run(self, count: int) -> None:
        async with trio.open_nursery() as calls:
            for _ in range(count):
                calls.start_soon(self.call)
                await trio.sleep(1 / RATE)


URLS = ["http://a", "http://b"]


@pytest.mark.parametrize("hedged", [False, True])
@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
@pytest.mark.parametrize("latency", [0.001, 0.005, 0.02, 0.05, 0.5])
async def test_nobody_sees_one_of_two_replicas_die_at_any_latency(
    autojump_clock, latency: float, policy: PolicyName, hedged: bool
) -> None:
    hosts = Hosts(latency)
    budget = Budget()
    balance = Balance(hosts, URLS, policy=policy, rng=random.Random(1))
    layer = Hedge(balance, after="p95", budget=budget) if hedged else balance
    async with Retry(layer, budget=budget, rng=random.Random(2)) as retry, trio.open_nursery() as nursery:
        load = Load(retry)
        nursery.start_soon(load.run, 2 * RATE + int(latency * RATE))
        await trio.sleep(1.0 + latency)
        hosts.kill("http://b")
    assert load.failed == 0
    assert budget.statistics().denied == 0
    statistics = balance.statistics()
    assert statistics.replicas[1].ejected_for > 0
    # What was in flight there, and no more than a few that came to it later.
    assert statistics.failovers <= statistics.replicas[1].failed <= RATE * latency + 10


async def test_an_upstream_that_dies_as_a_whole_gets_no_more_than_its_budget(autojump_clock) -> None:
    hosts = Hosts(0.5)
    budget = Budget()
    # Without ejections both would be asked for ever, and with them one would: that is another matter than the budget's.
    balance = Balance(hosts, URLS, ejection=None, rng=random.Random(1))
    retry = Retry(balance, budget=budget, rng=random.Random(2))
    load = Load(retry)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, 3 * RATE)
        await trio.sleep(1.0)
        hosts.kill("http://a")
        hosts.kill("http://b")
    assert load.failed > RATE
    # The first to die could not know yet that the other was dying too.
    assert balance.statistics().failovers <= 0.5 * RATE + 10
    before = balance.statistics().failovers
    await load.run(5 * RATE)
    assert balance.statistics().failovers - before <= 10


async def test_a_replica_that_resets_now_and_then_costs_budget_like_any_other_failure(autojump_clock) -> None:
    """Flapping is no death: ten seconds of it are granted one lot."""
    answers = 0

    async def act(request: httpx.Request) -> httpx.Response:
        nonlocal answers
        await trio.sleep(0.02)
        answers += 1
        if answers % 2:
            raise ConnectionReset("now and then", untouched=True)
        return complete()

    budget = Budget(0, 0)
    balance = Balance(Acting(act), URLS, ejection=EjectionRules(failures=10**6), rng=random.Random(1))
    load = Load(Retry(balance, budget=budget, rng=random.Random(2)))
    await load.run(9 * RATE)
    # A lot for each of the two replicas, of at least five and at most what was in flight there.
    assert 0 < balance.statistics().failovers <= 20
    assert load.failed >= 9 * RATE / 2 - 20


class Acting(httpx.AsyncBaseTransport):
    def __init__(self, act) -> None:
        self.handle_async_request = act
