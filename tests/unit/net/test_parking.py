"""A task that a callback wakes."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from umbel.net.parking import Parking


async def test_a_wake_before_the_wait_is_kept() -> None:
    parking = Parking()
    parking.wake()
    assert parking.woken


@pytest.mark.parametrize("wakes", [1, 2])
async def test_a_parked_task_is_woken_once(wakes: int, nursery: trio.Nursery) -> None:
    parking, rounds = Parking(), 0

    async def run() -> None:
        nonlocal rounds
        for _ in range(2):
            await parking.park()
            rounds += 1

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    for _ in range(wakes):
        parking.wake()
    assert parking.woken == (wakes == 2)
    await wait_all_tasks_blocked()
    assert rounds == 1
    parking.wake()
    await wait_all_tasks_blocked()
    assert rounds == 2


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancel_and_a_wake_in_one_turn_end_one_wait(cancel_first: bool, nursery: trio.Nursery) -> None:
    parking, scope, ended = Parking(), trio.CancelScope(), list[str]()

    async def run() -> None:
        with scope:
            try:
                await parking.park()
                ended.append("woken")
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                ended.append("cancelled")
                raise
        await trio.sleep_forever()  # A further reschedule would end this wait.
        ended.append("rescheduled")

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    for step in (scope.cancel, parking.wake)[:: 1 if cancel_first else -1]:
        step()
    await wait_all_tasks_blocked()
    parking.wake()
    await wait_all_tasks_blocked()
    assert ended == (["cancelled"] if cancel_first else ["woken", "cancelled"])
    nursery.cancel_scope.cancel()


async def test_the_wait_of_another_function_is_not_woken(nursery: trio.Nursery) -> None:
    parking, scope = Parking(), trio.CancelScope()
    event = trio.Event()

    async def run() -> None:
        with scope:
            await parking.park()
        await event.wait()

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    parking.wake()
    assert parking.woken
    await wait_all_tasks_blocked()
    assert event.statistics().tasks_waiting == 1
    nursery.cancel_scope.cancel()
