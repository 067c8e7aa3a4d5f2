"""Background nurseries and task owners: entering, leaving, contexts and cancels."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Self

import pytest
import trio
import trio.testing

from umbel.core.errors import NotRunningError
from umbel.upstream.background_tasks import BackgroundNursery, TaskOwner


class Below:
    """Counts its entries, and keeps the exception of each exit."""

    def __init__(self) -> None:
        self.entered = 0
        self.errors: list[BaseException | None] = []

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.entered -= 1
        self.errors.append(exc_value)


class Thing(TaskOwner):
    """Its task reports when it runs; its beginning may take time, or fail."""

    def __init__(self, below: Below, *, takes: float = 0.0, error: Exception | None = None) -> None:
        super().__init__(BackgroundNursery("the thing"), below)
        self.below = below
        self.tasks = self.begun = 0
        self._takes = takes
        self._error = error

    async def _begin(self) -> None:
        self.begun += 1
        self._nursery.start_soon(self._work)
        await trio.sleep(self._takes)
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        assert self.below.entered, "what the task uses is there as long as the task is"
        self.tasks += 1
        try:
            await trio.sleep_forever()
        finally:
            assert self.below.entered
            self.tasks -= 1


async def test_a_task_owner_begins_once_and_ends_with_its_outermost_exit(autojump_clock) -> None:
    thing = Thing(Below())
    async with thing:
        async with thing:
            await trio.testing.wait_all_tasks_blocked()
            assert (thing.begun, thing.tasks, thing.below.entered) == (1, 1, 2)
        assert (thing.tasks, thing.below.entered) == (1, 1)
    assert (thing.tasks, thing.below.entered) == (0, 0)


async def test_the_context_below_gets_the_blocks_exception_without_a_group(autojump_clock) -> None:
    thing, error = Thing(Below()), KeyError("x")
    with pytest.raises(KeyError) as caught:
        async with thing:
            raise error
    assert caught.value is error
    assert thing.below.errors == [error]


async def test_a_begin_that_raises_leaves_no_task_and_nothing_entered(autojump_clock) -> None:
    thing = Thing(Below(), takes=1.0, error=RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        async with thing:
            raise AssertionError("it cannot be entered")
    assert (thing.tasks, thing.below.entered) == (0, 0)


async def test_a_begin_that_is_cancelled_leaves_no_task_and_nothing_entered(autojump_clock) -> None:
    thing = Thing(Below(), takes=1000.0)
    with trio.move_on_after(1) as scope:
        async with thing:
            raise AssertionError("it cannot be entered")
    assert scope.cancelled_caught
    assert (thing.tasks, thing.below.entered) == (0, 0)


async def test_a_background_nursery_starts_tasks_in_the_context_that_opened_it() -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody's")
    seen: list[str] = []

    async def look() -> None:
        seen.append(name.get())

    own = BackgroundNursery("a test")
    name.set("its owner's")
    assert await own.open()
    name.set("a caller's")
    own.start_soon(look)
    await trio.testing.wait_all_tasks_blocked()
    await own.close()
    assert seen == ["its owner's"]


async def test_a_background_nursery_ends_with_its_outermost_close(autojump_clock) -> None:
    ended: list[float] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    own = BackgroundNursery("a test")
    assert await own.open()
    assert not await own.open()
    own.start_soon(task)
    await trio.sleep(1)
    await own.close()
    assert (own.running, ended) == (True, [])
    await own.close()
    assert (own.running, len(ended)) == (False, 1)
    with pytest.raises(NotRunningError, match="a test is used outside"):
        own.start_soon(task)


async def test_closing_waits_for_the_tasks_even_if_the_closing_task_is_cancelled(autojump_clock) -> None:
    ended = False

    async def slow_to_end() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            ended = True

    own = BackgroundNursery("a test")
    with trio.move_on_after(1):
        await own.open()
        own.start_soon(slow_to_end)
        await trio.testing.wait_all_tasks_blocked()
        await own.close()
    assert ended
