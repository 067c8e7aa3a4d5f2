from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from umbel.kinds import Kind
from umbel.upstream.bulkhead import Bulkhead
from umbel.upstream.errors import Overflow


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
