"""Foreign code in an own context: its context variables do not remain, whether the code waits or not."""

from __future__ import annotations

from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from umbel.server.own_context import DONE, run_in_own_context

VARIABLE = ContextVar("variable", default="outside")


async def work(waits: int, seen: list[str], error: type[Exception] | None = None) -> None:
    VARIABLE.set("inside")
    for _ in range(waits):
        await trio.lowlevel.checkpoint()
    seen.append(VARIABLE.get())
    if error is not None:
        raise error


class Awaitable:
    """An awaitable that is no coroutine, as compiled code makes them."""

    def __init__(self, waits: int, seen: list[str]) -> None:
        self._work = work(waits, seen)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._work.__await__()


@pytest.mark.parametrize("waits", [0, 1, 3])
@pytest.mark.parametrize("make", [work, Awaitable])
async def test_a_variable_is_unset_after_the_work_and_the_first_wait_reported(make: Any, waits: int) -> None:
    seen: list[str] = []
    begun: list[int] = []
    with trio.testing.assert_checkpoints() if waits else trio.testing.assert_no_checkpoints():
        await run_in_own_context(make(waits, seen), lambda: begun.append(len(seen)))
    assert (seen, begun, VARIABLE.get()) == (["inside"], [0] * min(waits, 1), "outside")


@pytest.mark.parametrize("waits", [0, 2])
async def test_an_exception_of_the_work_is_raised_and_leaves_no_variable(waits: int) -> None:
    with pytest.raises(KeyError):
        await run_in_own_context(work(waits, [], KeyError), int)
    assert VARIABLE.get() == "outside"


async def test_a_cancel_is_raised_in_work_that_waits() -> None:
    seen: list[str] = []
    with trio.CancelScope() as scope:
        await run_in_own_context(work(1, seen), lambda: scope.cancel(reason="test"))
    assert scope.cancelled_caught
    assert (seen, VARIABLE.get()) == ([], "outside")


async def test_done_can_be_awaited_any_number_of_times() -> None:
    for _ in range(3):
        with trio.testing.assert_no_checkpoints():
            await DONE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, 1, [])
        await DONE
