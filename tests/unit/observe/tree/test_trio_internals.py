"""What the task tree reads of trio without a public name: these tests fail where a new trio has changed it."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from umbel.observe.tree.trio_internals import cancel_reason, entered_scopes, is_cancelled, is_runnable


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
