"""Breaker, bulkhead, balance and health checks, cancelled at every checkpoint in turn: nothing stays counted."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.layers import Bottom, Pieces, answering, asked, call_facts, complete
from tests.support.sources import Given
from umbel.policy.breaker import State
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance
from umbel.upstream.breaker import Breaker
from umbel.upstream.bulkhead import Bulkhead
from umbel.upstream.errors import ConnectFailed, NameFailed
from umbel.upstream.health import Health
from umbel.upstream.origin import Replica

REPLICAS = ["http://a", "http://b"]


async def in_steps(request: httpx.Request) -> httpx.Response:
    for _ in range(3):
        await trio.sleep(0.1)
    return complete()


async def streaming(request: httpx.Request) -> httpx.Response:
    await trio.lowlevel.checkpoint()
    return httpx.Response(200, stream=Pieces())


class Stack:
    """The layers of a stack, but pool and body."""

    def __init__(self, act, **options) -> None:
        self.bottom = Bottom(act)
        self.balance = Balance(Attempt(self.bottom), REPLICAS)
        self.bulkhead = Bulkhead(self.balance, **options)
        self.breaker = Breaker(self.bulkhead)

    async def fetch(self) -> None:
        response = await self.breaker.handle_async_request(asked(call_facts(10.0)))
        try:
            await response.aread()
        finally:
            await response.aclose()

    async def at_once(self, number: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(self.fetch)

    def assert_nothing_left(self) -> None:
        bulkhead = self.bulkhead.statistics()
        assert (bulkhead.in_flight, bulkhead.waiting, dict(bulkhead.origins)) == (0, 0, {})
        replicas = self.balance.statistics().replicas
        assert [(each.in_flight, each.failed) for each in replicas] == [(0, 0), (0, 0)]
        breaker = self.breaker.statistics().origins["http://upstream"]
        assert (breaker.state, breaker.failures) == (State.CLOSED, 0)


@pytest.mark.parametrize("act", [in_steps, streaming])
@pytest.mark.parametrize("max_concurrency", [1, "auto"])
async def test_a_call_leaves_no_place_and_counts_for_nothing(act, max_concurrency, autojump_clock) -> None:
    stack = Stack(act, max_concurrency=max_concurrency)
    await stack.fetch()

    async def check() -> None:
        stack.assert_nothing_left()
        await stack.fetch()

    assert await for_every_checkpoint(lambda: stack.at_once(3), check) > 5
    assert stack.bottom.in_flight == 0


@pytest.mark.parametrize("act", [in_steps, streaming])
async def test_a_probe_leaves_its_place_to_the_next_call(act, autojump_clock) -> None:
    bottom = Bottom(act)
    breaker = Breaker(Balance(bottom, REPLICAS))

    async def fetch() -> None:
        response = await breaker.handle_async_request(asked(call_facts(10.0)))
        await response.aread()
        await response.aclose()

    async def open_and_probe() -> None:
        nonlocal breaker
        bottom.act = answering(503)
        breaker = Breaker(Balance(bottom, REPLICAS), min_requests=1)
        await fetch()
        bottom.act = act
        await trio.sleep(5)
        await fetch()

    async def check() -> None:
        # Open or half-open, the next call is admitted once the time is over, and closes it.
        bottom.act = act
        await trio.sleep(5)
        await fetch()
        assert breaker.statistics().origins["http://upstream"].state is State.CLOSED

    assert await for_every_checkpoint(open_and_probe, check) > 4
    assert bottom.in_flight == 0


async def test_health_checks_leave_nothing(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.1)
        if request.url.host == "b":
            raise ConnectFailed("no")
        if len(bottom.requests) % 3 == 0:
            raise RuntimeError("bug")
        return httpx.Response(200, stream=Pieces())

    bottom = Bottom(act)

    async def whole_life() -> None:
        health = Health(bottom, REPLICAS, every=1.0)
        async with Balance(bottom, REPLICAS, health=health) as balance:
            await trio.sleep(5)
            with suppress(ConnectFailed, RuntimeError):
                await balance.handle_async_request(asked())

    def check() -> None:
        assert (bottom.in_flight, bottom.entered) == (0, 0)

    assert await for_every_checkpoint(whole_life, check) > 20


@pytest.mark.parametrize("act", [in_steps, streaming])
async def test_neither_do_replicas_that_come_and_go(act, autojump_clock) -> None:
    bottom = Bottom(act)
    a, b, c = (Replica.parse(f"http://{host}") for host in "abc")
    source = Given(a, b)
    balance = Balance(Attempt(bottom), source)

    async def call() -> None:
        with suppress(NameFailed):
            response = await balance.handle_async_request(asked(call_facts(10.0)))
            try:
                await response.aread()
            finally:
                await response.aclose()

    async def whole_life() -> None:
        nonlocal balance
        source.become(a, b)
        health = Health(bottom, source, every=0.5)
        balance = Balance(Attempt(bottom), source, health=health)
        async with balance, trio.open_nursery() as nursery:
            for replicas in ((b, c), (a,), (), (b,)):
                for _ in range(2):
                    nursery.start_soon(call)
                await trio.sleep(0.15)
                source.become(*replicas)

    def check() -> None:
        assert (bottom.in_flight, bottom.entered, source.entered) == (0, 0, 0)
        statistics = balance.statistics()
        assert [(each.in_flight, each.failed) for each in statistics.replicas] == [(0, 0)] * len(source.replicas)

    assert await for_every_checkpoint(whole_life, check) > 20
