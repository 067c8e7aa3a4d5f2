"""The coalescing layer, cancelled at every checkpoint in turn: no flight and nothing of one stays."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.memory_dial import MemoryDial, echo_server
from umbel.upstream import Body, Pool
from umbel.upstream.coalesce import Coalesce


async def ask(coalesce: httpx.AsyncBaseTransport, path: str = "/") -> None:
    response = await coalesce.handle_async_request(httpx.Request("GET", f"http://x{path}"))
    assert await response.aread() == b"ok"


async def test_callers_that_are_cancelled_leave_no_flight_and_no_connection(
    nursery: trio.Nursery, autojump_clock
) -> None:
    dial = MemoryDial(nursery, echo_server(), delay=0.1)
    pool = Pool(dial=dial, max_connections=1)
    async with Coalesce(Body(pool)) as coalesce:

        async def callers() -> None:
            async with trio.open_nursery() as several:
                for path in ("/a", "/a", "/b", "/a"):
                    several.start_soon(ask, coalesce, path)

        async def check() -> None:
            statistics = coalesce.statistics()
            assert (statistics.in_flight, statistics.waiting) == (0, 0)
            assert pool.statistics().active == 0
            assert pool.statistics().connecting == 0
            # What is left serves; kept connections go, so that each round is like the first.
            await ask(coalesce)
            await pool.aclose()

        assert await for_every_checkpoint(callers, check) > 8
    assert dial.open == 0


async def test_one_that_is_cancelled_at_any_point_costs_the_other_nothing(
    nursery: trio.Nursery, autojump_clock
) -> None:
    asked = 0

    async def act(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        return httpx.Response(200, content=b"ok")

    class Bottom(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await act(request)

    async with Coalesce(Bottom()) as coalesce:
        other_ended = trio.Event()
        abandoned = 0

        async def other() -> None:
            await ask(coalesce)
            other_ended.set()

        async def leaver() -> None:
            nonlocal asked, abandoned, other_ended
            asked, abandoned, other_ended = 0, coalesce.statistics().abandoned, trio.Event()
            nursery.start_soon(other)
            await ask(coalesce)

        async def check() -> None:
            with trio.fail_after(5):
                await other_ended.wait()
            # Unless it was alone still, and took its flight with it.
            assert asked == 1 + coalesce.statistics().abandoned - abandoned

        asked = 1
        other_ended.set()
        assert await for_every_checkpoint(leaver, check) >= 2


@pytest.mark.parametrize("callers", [1, 3])
async def test_its_own_block_leaves_nothing(callers: int, nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, echo_server(), delay=0.1)

    async def whole_life() -> None:
        async with Coalesce(Body(Pool(dial=dial))) as coalesce:
            for _ in range(2):
                async with trio.open_nursery() as several:
                    for _ in range(callers):
                        several.start_soon(ask, coalesce)

    def check() -> None:
        assert dial.open == 0

    assert await for_every_checkpoint(whole_life, check) > 8
