"""The bulkhead of an upstream: places, queue, and the learned limit."""

from __future__ import annotations

import math
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.calls import request_facts
from tests.support.upstream.scripted_upstream import HANGS, OK, Scripted, Step, in_parts, scripted
from umbel.core.call import Call, CallContext, PreparedRequest
from umbel.core.failure_kinds import Kind
from umbel.upstream import BulkheadStatistics, Transport
from umbel.upstream.errors import BudgetSpent, ConnectFailed, ConnectionReset, Overflow
from umbel.upstream.replicas.origin import Origin


def bulkhead(upstream: Scripted) -> BulkheadStatistics:
    return upstream.client.statistics().bulkhead


def targets(upstream: Scripted) -> list[str]:
    return [made.request.split()[1].decode() for made in upstream.script.made]


async def test_calls_over_the_limit_wait_first_come_first_served(autojump_clock) -> None:
    async with scripted([OK], max_concurrency=1, max_queue=10) as upstream, trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(upstream.call, b"/%d" % number)
            await trio.testing.wait_all_tasks_blocked()
        assert bulkhead(upstream) == BulkheadStatistics(1, 1, 5, 6, False, 0, None)
        await trio.sleep(1)
        assert targets(upstream) == [f"/{number}" for number in range(6)]
        assert bulkhead(upstream) == BulkheadStatistics(1, 0, 0, 0, False, 0, None)


@pytest.mark.parametrize("max_queue", [1, 0])
async def test_a_full_queue_fails_the_next_call_at_once(max_queue: int, autojump_clock) -> None:
    async with scripted([OK], max_concurrency=1, max_queue=max_queue) as upstream, trio.open_nursery() as nursery:
        for number in range(1 + max_queue):
            nursery.start_soon(upstream.call, b"/%d" % number)
            await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        error = await upstream.outcome(target=b"/more")
        assert isinstance(error, Overflow)
        assert (error.kind, error.proxy_error) == (Kind.OVERFLOW, "connection_limit_reached")
        assert (bulkhead(upstream).overflowed, trio.current_time()) == (1, before)
        await trio.sleep(1)
        assert "/more" not in targets(upstream)


async def test_a_cancelled_waiting_call_leaves_the_queue(autojump_clock) -> None:
    leaver = trio.CancelScope()

    async def leave(upstream: Scripted) -> None:
        with leaver:
            await upstream.call(b"/leaver")

    async with scripted([OK], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        for call in (upstream.call, lambda _: leave(upstream), upstream.call):
            nursery.start_soon(call, b"/stays")
            await trio.testing.wait_all_tasks_blocked()
        leaver.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bulkhead(upstream).waiting == 1
        await trio.sleep(1)
        assert targets(upstream) == ["/stays", "/stays"]


async def test_a_place_granted_to_a_call_cancelled_in_the_same_turn_is_not_lost(autojump_clock) -> None:
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def call(upstream: Scripted, scope: trio.CancelScope) -> None:
        with scope:
            await upstream.call()

    async with scripted([HANGS], max_concurrency=1) as upstream:
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(call, upstream, scope)
                await trio.testing.wait_all_tasks_blocked()
            for scope in scopes:
                scope.cancel(reason="client-gone")
        upstream.assert_nothing_left()


async def test_a_failed_call_gives_its_place_back(autojump_clock) -> None:
    async with scripted([Step(0.0, failed := ConnectFailed("no"))], max_concurrency=1, max_queue=0) as upstream:
        for _ in range(3):
            await upstream.ends_as(failed)


async def test_a_streamed_response_keeps_its_place_until_it_is_closed(autojump_clock) -> None:
    async with (
        scripted([Step(0.1, in_parts(200, b"1"))], max_concurrency=1, max_queue=0) as upstream,
        httpx.AsyncClient(transport=upstream.transport) as client,
    ):
        async with client.stream("GET", "http://x/", extensions={"stream": True}) as got:
            assert bulkhead(upstream).in_flight == 1
            assert b"".join([piece async for piece in got.aiter_raw()]) == b"1"
            assert bulkhead(upstream).in_flight == 0
        async with client.stream("GET", "http://x/", extensions={"stream": True}):
            assert bulkhead(upstream).in_flight == 1
        assert bulkhead(upstream).in_flight == 0


# Calls without tasks


class Crowd:
    """An owner of many calls in one task."""

    def __init__(self, upstream: Scripted) -> None:
        self.upstream = upstream
        self.ended: list[Call] = []
        self.waiting: list[Call] = []

    def call_ended(self, call: Call) -> None:
        self.ended.append(call)

    def call_waits(self, call: Call) -> None:
        self.waiting.append(call)

    def start(self, budget: float = math.inf) -> Call:
        facts = request_facts(budget)
        context = CallContext(self, "call", "upstream", facts, facts.deadline)
        call = self.upstream.client.new_call(PreparedRequest("GET", b"/", ()), context)
        call.start(trio.current_time())
        call.send()
        return call


async def test_a_call_in_the_queue_has_no_task_and_its_place_is_granted_in_a_callback(autojump_clock) -> None:
    async with scripted([OK], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        crowd = Crowd(upstream)
        calls = [crowd.start() for _ in range(3)]
        assert (crowd.waiting, bulkhead(upstream).waiting) == (calls[:1], 2), "the first one must connect"
        before = trio.lowlevel.current_statistics().tasks_living
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        calls[0].cancel("client-gone")
        assert (crowd.waiting, bulkhead(upstream).waiting) == (calls[:2], 1), "in that very step"
        await calls[0].finish()  # Nothing waits any more.
        for number in (1, 2):
            nursery.start_soon(calls[number].finish)
            await trio.sleep(0.2)
            assert (crowd.ended, crowd.waiting) == (calls[1 : number + 1], calls)
        assert [call.content for call in crowd.ended] == [b"1", b"2"]


async def test_a_long_queue_of_calls_that_fail_at_once_does_not_recurse(autojump_clock) -> None:
    count = 20_000
    async with scripted([HANGS], max_concurrency=1, max_queue=count) as upstream:
        crowd = Crowd(upstream)
        first = crowd.start()
        calls = [crowd.start(budget=1.0) for _ in range(count)]
        await trio.sleep(2)  # The calls are not cancelled, and their deadline has passed.
        first.cancel("client-gone")
        assert crowd.ended == calls
        assert {type(call.error) for call in calls} == {BudgetSpent}
        upstream.assert_nothing_left()


async def test_calls_in_the_queue_end_when_the_upstream_is_closed(autojump_clock) -> None:
    ends: list[object] = []

    async def call(upstream: Scripted) -> None:
        ends.append(type(await upstream.outcome()).__name__)

    async with trio.open_nursery() as nursery, scripted([HANGS], max_concurrency=1) as upstream:
        for _ in range(3):
            nursery.start_soon(call, upstream)
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(upstream.transport, Transport)
        await upstream.transport.client.__aexit__()
        await trio.testing.wait_all_tasks_blocked()
        assert ends == [ConnectionReset.__name__, "NotRunningError", "NotRunningError"]
        await upstream.transport.client.__aenter__()


# max_concurrency = "auto"


class Shared:
    """An upstream that serves ``capacity`` calls at once; more of them share it, so each takes longer."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.status = 200
        self.most = 0
        self.upstream: Scripted | None = None

    def __call__(self, origin: Origin) -> Step:
        assert self.upstream is not None
        in_flight = self.upstream.script.in_flight
        self.most = max(self.most, in_flight)
        return Step(self.seconds * max(1.0, in_flight / self.capacity), self.status)


async def press(upstream: Scripted, clients: int, seconds: float, budget: float = math.inf) -> None:
    """``clients`` clients, each with one call after the other."""

    async def client() -> None:
        while True:
            with trio.move_on_after(budget):
                await upstream.call(budget=budget)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)


def learned(upstream: Scripted) -> int:
    limit = bulkhead(upstream).limit
    assert limit is not None
    assert bulkhead(upstream).capacity == limit.limit
    return limit.limit


def auto(shared: Shared):
    return scripted(shared, max_concurrency="auto", max_queue=200)


async def test_auto_learns_the_capacity_of_an_upstream(autojump_clock) -> None:
    shared = Shared(capacity=20, seconds=0.5)
    async with auto(shared) as shared.upstream:
        await press(shared.upstream, 50, 60)
        assert 20 <= learned(shared.upstream) <= 32
        shared.most = 0
        await press(shared.upstream, 50, 10)
        assert 20 <= shared.most <= 32


async def test_auto_lowers_the_limit_when_calls_take_longer_and_raises_it_again(autojump_clock) -> None:
    shared = Shared(capacity=20, seconds=0.5)
    async with auto(shared) as shared.upstream:
        await press(shared.upstream, 60, 60)
        shared.capacity = 5
        await press(shared.upstream, 60, 40)
        assert learned(shared.upstream) <= 8
        shared.capacity = 20
        await press(shared.upstream, 60, 60)
        assert learned(shared.upstream) >= 20


async def test_auto_learns_from_timeouts_and_never_from_cancels_and_failures(autojump_clock) -> None:
    shared = Shared(capacity=20, seconds=0.5)
    async with auto(shared) as shared.upstream:
        await press(shared.upstream, 60, 60)
        before = bulkhead(shared.upstream).limit
        assert before is not None
        shared.seconds = 1000.0
        for _ in range(20):
            await press(shared.upstream, 60, 2.0)  # All calls are cut from outside.
        assert bulkhead(shared.upstream).limit == before
        shared.seconds, shared.status = 0.01, 503
        await press(shared.upstream, 10, 3.0)
        assert bulkhead(shared.upstream).limit == before
        shared.seconds = 1000.0
        await press(shared.upstream, 60, 30, budget=1.0)  # All calls are cut by their request's deadline.
        assert learned(shared.upstream) <= before.limit / 2


async def test_auto_learns_from_calls_that_end_by_their_own_limit(autojump_clock) -> None:
    shared = Shared(capacity=20, seconds=0.5)
    async with auto(shared) as shared.upstream:
        await press(shared.upstream, 30, 20)
        before = learned(shared.upstream)
        shared.seconds = 1000.0
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(partial(shared.upstream.outcome, limit=1.0))
        assert learned(shared.upstream) <= before / 2


async def test_auto_learns_from_a_streamed_response_by_its_head(autojump_clock) -> None:
    async with scripted([Step(0.1, in_parts(200, b"x"))], max_concurrency="auto") as upstream:
        for _ in range(30):
            got = await upstream.stream()
            await trio.sleep(0.5)
            assert bulkhead(upstream).in_flight == 1
            await got.aclose()
        limit = bulkhead(upstream).limit
        assert limit is not None
        assert limit.recent is None, "two in a second are too few to look at"
        streams = []
        for _ in range(30):
            streams.append(await upstream.stream())
            await streams[-1].aclose()
        limit = bulkhead(upstream).limit
        assert limit is not None
        assert limit.recent == pytest.approx(0.1, rel=0.1), "not for how long they are read"


async def test_auto_keeps_its_limit_during_a_pause_without_calls(autojump_clock) -> None:
    shared = Shared(capacity=1000, seconds=1.0)
    async with auto(shared) as shared.upstream:
        await press(shared.upstream, 100, 20)
        limit = learned(shared.upstream)
        assert limit > 30
        await trio.sleep(1000)
        assert learned(shared.upstream) == limit
