"""Cancels of coalesced calls at each checkpoint in turn: no shared call and no connection is left."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.memory_calls import Asked, answer, coalescing
from tests.support.upstream.memory_dial import MemoryDial, echo_server
from umbel.upstream import Retry, Transport


async def ask(transport: httpx.AsyncBaseTransport, path: str = "/") -> None:
    response = await transport.handle_async_request(httpx.Request("GET", f"http://x{path}"))
    assert await response.aread() == b"ok"


@pytest.mark.parametrize("limit", [None, 60.0], ids=["without limit", "with a limit of their own"])
async def test_callers_that_are_cancelled_leave_no_shared_call_and_no_connection(
    limit: float | None, autojump_clock
) -> None:
    statuses = iter(())

    async def act(asked: Asked) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer(next(statuses, 200), b"ok", [("set-cookie", "a=1")] if asked.target == b"/b" else [])

    async with coalescing(act, delay=0.1, max_concurrency=1, retry=Retry(), timeout=limit) as upstream:

        async def callers() -> None:
            nonlocal statuses
            statuses = iter((503,))
            async with trio.open_nursery() as several:
                for path in ("/a", "/a", "/b", "/b", "/a"):
                    several.start_soon(ask, upstream.transport, path)

        async def check() -> None:
            # The connections of cancelled calls are closed when their tasks have ended.
            await trio.testing.wait_all_tasks_blocked()
            upstream.assert_nothing_left()
            # The client still works. Idle connections are closed, so that each round begins like the first.
            await ask(upstream.transport)
            await upstream.transport.aclose()

        assert await for_every_checkpoint(callers, check) > 8


async def test_a_coalesced_call_that_is_cancelled_does_not_affect_the_other_one(
    nursery: trio.Nursery, autojump_clock
) -> None:
    async def act(asked: Asked) -> bytes:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        return answer(content=b"ok")

    async with coalescing(act) as upstream:
        other_ended = trio.Event()
        abandoned = 0

        async def other() -> None:
            await ask(upstream.transport)
            other_ended.set()

        async def leaver() -> None:
            nonlocal abandoned, other_ended
            upstream.requests.clear()
            abandoned, other_ended = upstream.statistics.abandoned, trio.Event()
            nursery.start_soon(other)
            await ask(upstream.transport)

        async def check() -> None:
            with trio.fail_after(5):
                await other_ended.wait()
            # Except if it was the only one so far: then the shared call was cancelled with it.
            assert 1 <= len(upstream.requests) <= 1 + upstream.statistics.abandoned - abandoned

        # Cancelled before its first step, it starts no other task.
        upstream.requests.append(Asked("GET", b"/", [], b""))
        other_ended.set()
        assert await for_every_checkpoint(leaver, check) >= 2


@pytest.mark.parametrize("callers", [1, 3])
async def test_a_client_that_is_cancelled_leaves_no_shared_call(
    callers: int, nursery: trio.Nursery, autojump_clock
) -> None:
    dial = MemoryDial(nursery, echo_server(), delay=0.1)

    async def enter_to_exit() -> None:
        async with Transport(["http://x"], coalesce=True, dial=dial) as transport:
            for _ in range(2):
                async with trio.open_nursery() as several:
                    for _ in range(callers):
                        several.start_soon(ask, transport)

    def check() -> None:
        assert dial.open == 0

    assert await for_every_checkpoint(enter_to_exit, check) > 8
