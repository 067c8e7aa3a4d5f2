from __future__ import annotations

import math

import httpx
import pytest
import trio
import trio.testing

from tests.support.layers import Bottom, Pieces, answering, asked, call_facts, complete
from umbel.kinds import Kind
from umbel.upstream.bulkhead import Bulkhead
from umbel.upstream.errors import Overflow
from umbel.upstream.perorigin import ORIGINS_MAX
from umbel.upstream.slots import Slots


class Gate(httpx.AsyncBaseTransport):
    """Holds every request until it is let through; notes the order."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.open = trio.Event()
        self.living = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.entered.append(request.url.path)
        await self.open.wait()
        response = httpx.Response(200, stream=httpx.ByteStream(b""))
        response.read()
        return response

    async def __aenter__(self) -> Gate:
        self.living += 1
        return self

    async def __aexit__(self, *error: object) -> None:
        self.living -= 1


def request(path: object, host: str = "x") -> httpx.Request:
    return httpx.Request("GET", f"http://{host}/{path}")


async def test_calls_over_the_limit_wait_in_the_order_they_came() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=10)
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(bulkhead.handle_async_request, request(number))
            await trio.testing.wait_all_tasks_blocked()
        statistics = bulkhead.statistics()
        assert (statistics.in_flight, statistics.waiting) == (1, 5)
        assert statistics.origins["http://x"].capacity == 1
        gate.open.set()
    assert gate.entered == [f"/{number}" for number in range(6)]
    assert bulkhead.statistics() == Bulkhead(gate).statistics()


async def test_a_full_queue_fails_the_next_call_at_once() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=1)
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(bulkhead.handle_async_request, request(number))
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overflow) as caught:
            await bulkhead.handle_async_request(request("more"))
        assert (caught.value.kind, caught.value.proxy_error) == (Kind.OVERFLOW, "connection_limit_reached")
        assert bulkhead.statistics().overflowed == 1
        gate.open.set()
    assert "/more" not in gate.entered


async def test_no_queue_at_all_is_allowed() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulkhead.handle_async_request, request(0))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overflow):
            await bulkhead.handle_async_request(request(1))
        gate.open.set()


async def test_a_cancelled_waiter_leaves_nothing_and_the_next_one_moves_up() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=5)
    leaver = trio.CancelScope()

    async def leave() -> None:
        with leaver:
            await bulkhead.handle_async_request(request("leaver"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulkhead.handle_async_request, request("first"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(bulkhead.handle_async_request, request("last"))
        await trio.testing.wait_all_tasks_blocked()
        leaver.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bulkhead.statistics().waiting == 1
        gate.open.set()
    assert gate.entered == ["/first", "/last"]
    assert bulkhead.statistics().in_flight == 0


async def test_a_place_given_to_a_waiter_that_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=5)
    first, second = trio.CancelScope(), trio.CancelScope()

    async def call(scope: trio.CancelScope) -> None:
        with scope:
            await bulkhead.handle_async_request(request("x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call, second)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel(reason="client-gone")
        second.cancel(reason="client-gone")
    assert bulkhead.statistics().in_flight == 0
    assert bulkhead.statistics().origins == {}


async def test_a_failed_call_gives_its_place_back() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    bulkhead = Bulkhead(httpx.MockTransport(refuse), max_concurrency=1, max_queue=0)
    for _ in range(3):
        with pytest.raises(httpx.ConnectError):
            await bulkhead.handle_async_request(request(0))
    assert bulkhead.statistics().in_flight == 0


async def test_alone_each_origin_has_its_own_limit() -> None:
    gate = Gate()
    bulkhead = Bulkhead(gate, max_concurrency=1, max_queue=0)
    async with trio.open_nursery() as nursery:
        for host in ("a", "b", "b:81"):
            nursery.start_soon(bulkhead.handle_async_request, request(0, host))
            await trio.testing.wait_all_tasks_blocked()
        assert set(bulkhead.statistics().origins) == {"http://a", "http://b", "http://b:81"}
        gate.open.set()


async def test_a_streamed_response_keeps_its_place_until_it_is_closed() -> None:
    class Streaming(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=httpx.ByteStream(b"abc"))

    bulkhead = Bulkhead(Streaming(), max_concurrency=1, max_queue=0)
    async with httpx.AsyncClient(transport=bulkhead) as client:
        async with client.stream("GET", "http://x/") as response:
            assert bulkhead.statistics().in_flight == 1
            assert b"".join([piece async for piece in response.aiter_raw()]) == b"abc"
        assert bulkhead.statistics().in_flight == 0
        assert (await client.get("http://x/")).content == b"abc"
        assert bulkhead.statistics().in_flight == 0


async def test_entering_it_enters_what_is_below() -> None:
    gate = Gate()
    async with Bulkhead(gate):
        assert gate.living == 1
    assert gate.living == 0


# max_concurrency = "auto"


class Shared(httpx.AsyncBaseTransport):
    """An upstream that serves ``capacity`` calls at once; more of them share it, so each takes longer."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.status = 200
        self.in_flight = 0
        self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await trio.sleep(self.seconds * max(1.0, self.in_flight / self.capacity))
        finally:
            self.in_flight -= 1
        return complete(self.status)


async def press(bulkhead: Bulkhead, clients: int, seconds: float, budget: float = math.inf) -> None:
    """So many clients, each with one call after the other."""

    async def client() -> None:
        while True:
            with trio.move_on_after(budget):
                await bulkhead.handle_async_request(asked(call_facts(budget)))

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)


def learned(bulkhead: Bulkhead) -> int:
    return bulkhead.statistics().limits["http://upstream"].limit


async def test_auto_finds_how_many_calls_an_upstream_bears_and_lets_no_more_through(autojump_clock) -> None:
    upstream = Shared(capacity=20, seconds=0.5)
    bulkhead = Bulkhead(upstream, max_concurrency="auto", max_queue=200)
    await press(bulkhead, 50, 60)
    assert 20 <= learned(bulkhead) <= 32
    upstream.most = 0
    await press(bulkhead, 50, 10)
    assert 20 <= upstream.most <= 32
    assert bulkhead.statistics().in_flight == upstream.in_flight == 0
    assert bulkhead.statistics().origins == {}


async def test_auto_lowers_the_limit_when_calls_take_longer_and_raises_it_again(autojump_clock) -> None:
    upstream = Shared(capacity=20, seconds=0.5)
    bulkhead = Bulkhead(upstream, max_concurrency="auto", max_queue=200)
    await press(bulkhead, 60, 60)
    upstream.capacity = 5
    await press(bulkhead, 60, 40)
    assert learned(bulkhead) <= 8
    upstream.capacity = 20
    await press(bulkhead, 60, 60)
    assert learned(bulkhead) >= 20


async def test_auto_learns_from_timeouts_and_never_from_cancels_and_failures(autojump_clock) -> None:
    upstream = Shared(capacity=20, seconds=0.5)
    bulkhead = Bulkhead(upstream, max_concurrency="auto", max_queue=200)
    await press(bulkhead, 60, 60)
    before = bulkhead.statistics().limits
    upstream.seconds = 1000.0
    for _ in range(20):
        await press(bulkhead, 60, 2.0)  # All cut, by somebody else.
    assert bulkhead.statistics().limits == before
    upstream.seconds, upstream.status = 0.01, 503
    await press(bulkhead, 10, 3.0)
    assert bulkhead.statistics().limits == before
    upstream.seconds = 1000.0
    await press(bulkhead, 60, 30, budget=1.0)  # All cut, by their own deadline.
    assert learned(bulkhead) <= before["http://upstream"].limit / 2


async def test_auto_wakes_as_many_waiters_as_it_has_room_for(autojump_clock) -> None:
    slots = Slots(1, 10)
    await slots.acquire()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(slots.acquire)
        await trio.testing.wait_all_tasks_blocked()
        slots.resize(3)
        assert (slots.in_use, slots.statistics().waiting) == (3, 2)
        slots.resize(1)  # Fewer than are in use: nobody is woken until they have gone.
        for left in (2, 1):
            slots.release()
            assert (slots.in_use, slots.statistics().waiting) == (left, 2)
        slots.release()
        assert (slots.in_use, slots.statistics().waiting) == (1, 1)
        slots.release()
    slots.release()
    assert slots.unused
    for capacity, waiting in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="there must be a place"):
            Slots(capacity, waiting)


async def test_auto_learns_from_a_streamed_response_by_its_head(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.1)
        return httpx.Response(200, stream=Pieces())

    bulkhead = Bulkhead(Bottom(act), max_concurrency="auto")
    for _ in range(30):
        response = await bulkhead.handle_async_request(asked())
        await trio.sleep(0.5)
        assert bulkhead.statistics().in_flight == 1
        await response.aclose()
    # Two in a second are too few to look at.
    assert bulkhead.statistics().limits["http://upstream"].recent is None
    assert bulkhead.statistics().in_flight == 0


async def test_auto_keeps_what_it_learned_of_an_origin_though_it_has_no_calls(autojump_clock) -> None:
    bulkhead = Bulkhead(Shared(capacity=1000, seconds=1.0), max_concurrency="auto", max_queue=200)
    await press(bulkhead, 100, 20)
    limit = learned(bulkhead)
    assert limit > 30
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulkhead.handle_async_request, asked())
        await trio.testing.wait_all_tasks_blocked()
        assert bulkhead.statistics().origins["http://upstream"].capacity == limit


async def test_no_more_than_a_thousand_origins_are_remembered() -> None:
    bulkhead = Bulkhead(Bottom(answering()), max_concurrency="auto")
    await bulkhead.handle_async_request(asked(url="http://first"))
    for number in range(ORIGINS_MAX):
        await bulkhead.handle_async_request(asked(url=f"http://h{number}"))
        if number < 10:
            await bulkhead.handle_async_request(asked(url="http://h0"))
    limits = bulkhead.statistics().limits
    assert len(limits) == ORIGINS_MAX
    assert "http://first" not in limits
    assert "http://h0" in limits
