"""What the task tree reads of trio without a public name: these tests fail where a new trio has changed it."""

from __future__ import annotations

import threading

import trio
from trio.testing import wait_all_tasks_blocked

from umbel.observe.tree.trio_internals import (
    cancel_reason,
    entered_scopes,
    holds_off_cancel,
    is_cancelled,
    is_runnable,
    running_task,
)


async def test_the_entered_scopes_of_a_task_end_at_its_nursery(autojump_clock: object) -> None:
    outer, inner = trio.CancelScope(deadline=100), trio.CancelScope(shield=True)

    async def child() -> None:
        with outer:
            async with trio.open_nursery() as own:
                with inner:
                    assert list(entered_scopes(trio.lowlevel.current_task())) == [inner, own.cancel_scope, outer]
            assert list(entered_scopes(trio.lowlevel.current_task())) == [outer]
        assert list(entered_scopes(trio.lowlevel.current_task())) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)


async def test_a_task_is_runnable_before_its_first_step_and_after_a_wake() -> None:
    event, tasks = trio.Event(), list[trio.lowlevel.Task]()

    async def waiting() -> None:
        tasks.append(trio.lowlevel.current_task())
        await event.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting)
        [started] = nursery.child_tasks
        assert is_runnable(started)
        await wait_all_tasks_blocked()
        assert not is_runnable(tasks[0])
        event.set()
        assert is_runnable(tasks[0])
        assert is_runnable(trio.lowlevel.current_task())


async def test_the_reason_of_a_cancel_is_the_one_given_or_its_source(autojump_clock: object) -> None:
    with trio.CancelScope() as scope:  # noqa: ASYNC100  # only its reason matters
        assert (is_cancelled(scope), cancel_reason(scope)) == (False, "")
        scope.cancel(reason="decided")
    assert (is_cancelled(scope), cancel_reason(scope)) == (True, "decided")
    with trio.CancelScope() as scope:  # noqa: ASYNC100  # only its reason matters
        scope.cancel()
    assert cancel_reason(scope) == "cancelled without a reason"
    with trio.move_on_after(1) as scope:
        await trio.sleep_forever()
    assert cancel_reason(scope) == "its deadline has passed"


async def test_a_shield_holds_off_a_cancel_only_if_there_is_one_outside(autojump_clock: object) -> None:
    task = trio.lowlevel.current_task()
    with trio.CancelScope() as outer, trio.CancelScope(shield=True) as shield:  # noqa: ASYNC100  # only their states
        assert not holds_off_cancel(task, shield)
        outer.cancel()
        assert holds_off_cancel(task, shield)
        assert not holds_off_cancel(task, outer)
    assert not holds_off_cancel(task, shield)


async def test_another_thread_sees_which_task_runs() -> None:
    running, seen = running_task(), list[trio.lowlevel.Task | None]()

    async def child() -> None:
        thread = threading.Thread(target=lambda: seen.append(running()))
        thread.start()
        thread.join()
        seen.append(trio.lowlevel.current_task())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen[0] is seen[1]
    # While the loop waits there is none.
    seen.clear()
    thread = threading.Timer(0.02, lambda: seen.append(running()))
    thread.start()
    await trio.sleep(0.1)
    assert seen == [None]
