from __future__ import annotations

from contextvars import ContextVar

import pytest
import trio
import trio.testing

from umbel.errors import NotRunningError
from umbel.upstream.ownnursery import OwnNursery
from umbel.upstream.pilots import IDLE_MAX, Pilots


async def note_task(tasks: list[trio.lowlevel.Task]) -> None:
    tasks.append(trio.lowlevel.current_task())
    await trio.lowlevel.checkpoint()


async def test_jobs_one_after_the_other_are_done_by_one_task() -> None:
    pilots, tasks = Pilots("a test"), []
    await pilots.open()
    for _ in range(5):
        pilots.start(note_task, tasks)
        await trio.testing.wait_all_tasks_blocked()
    assert len(tasks) == 5
    assert len(set(tasks)) == 1
    await pilots.close()


async def test_jobs_at_once_have_a_task_each_and_so_many_are_kept() -> None:
    pilots = Pilots("a test")
    await pilots.open()
    rounds: list[set[trio.lowlevel.Task]] = []
    for _ in range(2):
        tasks: list[trio.lowlevel.Task] = []
        for _ in range(IDLE_MAX + 20):
            pilots.start(note_task, tasks)
        await trio.testing.wait_all_tasks_blocked()
        rounds.append(set(tasks))
    assert [len(each) for each in rounds] == [IDLE_MAX + 20] * 2
    assert len(rounds[0] & rounds[1]) == IDLE_MAX
    await pilots.close()


async def test_a_job_that_is_cancelled_takes_its_task_along_and_no_other(autojump_clock) -> None:
    pilots = Pilots("a test")
    done = []

    async def job(seconds: float) -> None:
        await trio.sleep(seconds)
        done.append(seconds)

    await pilots.open()
    scope = pilots.start(job, 1)
    other = pilots.start(job, 2)
    assert scope is not other
    scope.cancel(reason="a test")
    await trio.sleep(3)
    assert done == [2]
    # The one that is left goes on; the cancelled scope is nobody's any more.
    assert pilots.start(job, 1) is other
    await trio.sleep(3)
    assert done == [2, 1]
    await pilots.close()


async def test_a_job_that_ends_although_it_was_cancelled_is_its_tasks_last(autojump_clock) -> None:
    pilots = Pilots("a test")
    tasks: list[trio.lowlevel.Task] = []

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)

    await pilots.open()
    scope = pilots.start(stubborn)
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel(reason="a test")
    await trio.sleep(2)
    assert pilots.start(note_task, tasks) is not scope
    await trio.testing.wait_all_tasks_blocked()
    assert len(tasks) == 1
    await pilots.close()


async def test_tasks_that_wait_for_work_end_with_it() -> None:
    pilots, tasks = Pilots("a test"), []
    for _ in range(2):
        await pilots.open()
        pilots.start(note_task, tasks)
        await trio.testing.wait_all_tasks_blocked()
        await pilots.close()
        with pytest.raises(NotRunningError, match="a test"):
            pilots.start(note_task, tasks)
    assert len(set(tasks)) == 2


async def test_a_nursery_of_ones_own_starts_tasks_in_its_own_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody's")
    seen: list[str] = []

    async def look() -> None:
        seen.append(name.get())

    own = OwnNursery("a test")
    name.set("its owner's")
    assert await own.open()
    name.set("a caller's")
    own.start_soon(look)
    await trio.testing.wait_all_tasks_blocked()
    await own.close()
    assert seen == ["its owner's"]


async def test_a_nursery_of_ones_own_counts_how_often_it_is_entered(autojump_clock) -> None:
    ended: list[float] = []

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    own = OwnNursery("a test")
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


async def test_closing_it_waits_for_its_tasks_even_where_the_closer_is_cancelled(autojump_clock) -> None:
    ended = False

    async def slow_to_end() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            ended = True

    own = OwnNursery("a test")
    with trio.move_on_after(1):
        await own.open()
        own.start_soon(slow_to_end)
        await trio.testing.wait_all_tasks_blocked()
        await own.close()
    assert ended
