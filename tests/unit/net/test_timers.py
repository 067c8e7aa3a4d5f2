"""Timer queue: order, cancelled timers, bounds of the heap, fairness; on the autojump clock."""

from __future__ import annotations

import gc
import random
import signal
import weakref
from collections import Counter

import pytest
import trio

from tests.support.scheduler_turns import counting_turns
from umbel.net.timers import CALLBACKS_MAX, CANCELLED_MAX, TimerQueue


async def test_each_callback_runs_at_its_time(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[tuple[float, float]] = []
    times = [random.Random(1).randrange(1, 1000) / 8 for _ in range(50)]
    for at in times:
        timers.add(at, lambda at=at: ran.append((at, trio.current_time())))
    assert len(timers) == 50
    await trio.sleep(200)
    assert ran == [(at, at) for at in sorted(times)]
    assert len(timers) == 0


async def test_timers_of_one_time_run_in_the_order_they_were_added(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    ran: list[int] = []
    for number in range(5):
        timers.add(1.0, lambda number=number: ran.append(number))
    nursery.start_soon(timers.run)
    await trio.sleep(1.5)
    assert ran == [0, 1, 2, 3, 4]


async def test_a_cancelled_timer_does_not_run(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[str] = []
    cancelled = timers.add(2.0, lambda: ran.append("cancelled"))
    timers.add(1.0, lambda: ran.append("kept"))
    cancelled.cancel()
    cancelled.cancel()
    assert not cancelled.active
    assert len(timers) == 1
    await trio.sleep(3)
    assert ran == ["kept"]
    assert len(timers) == 0


async def test_an_earlier_timer_moves_the_deadline_of_the_sleep(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[float] = []
    timers.add(100.0, lambda: ran.append(trio.current_time()))
    await trio.sleep(1)
    timers.add(2.0, lambda: ran.append(trio.current_time()))
    await trio.sleep(10)
    assert ran == [2.0]


async def test_a_timer_in_the_past_runs_at_once(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[float] = []
    await trio.sleep(5)
    timers.add(1.0, lambda: ran.append(trio.current_time()))
    await trio.sleep(1)
    assert ran == [5.0]


async def test_a_callback_may_add_a_timer_and_cancel_another(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[float] = []
    other = timers.add(1.0, lambda: ran.append(-1.0))
    other.cancel()
    victim = timers.add(1.5, lambda: ran.append(-2.0))

    def again() -> None:
        ran.append(trio.current_time())
        victim.cancel()
        if len(ran) < 3:
            timers.add(trio.current_time() + 1, again)

    timers.add(1.0, again)
    await trio.sleep(10)
    assert ran == [1.0, 2.0, 3.0]
    assert len(timers) == 0


async def test_cancelled_timers_are_removed_from_the_heap(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[int] = []
    for number in range(10):
        timers.add(50.0, lambda number=number: ran.append(number))
    for _ in range(10_000):
        timers.add(1000.0, lambda: ran.append(-1)).cancel()
        assert len(timers._heap) <= 2 * 10 + CANCELLED_MAX + 1
        assert len(timers) == 10
    await trio.sleep(60)
    assert ran == list(range(10))


async def test_a_queue_that_was_empty_wakes_for_its_first_timer(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    await trio.sleep(3)
    fired = trio.Event()
    timers.add(5.0, fired.set)
    await fired.wait()
    assert trio.current_time() == 5.0


async def test_a_million_adds_and_cancels_hold_at_most_twice_the_live_timers() -> None:
    timers = TimerQueue()
    live = [timers.add(1e9 + number, lambda: None) for number in range(500)]
    for number in range(1_000_000):
        timers.add(float(number), lambda: None).cancel()
        if not number % 1000:
            assert len(timers._heap) <= 2 * len(live) + CANCELLED_MAX + 1
    assert len(timers) == len(live)


async def test_a_cancelled_timer_keeps_nothing_alive() -> None:
    class Referred:
        def callback(self) -> None:
            raise AssertionError

    timers, referred = TimerQueue(), Referred()
    gone = weakref.ref(referred)
    timer = timers.add(1.0, referred.callback)
    del referred
    timer.cancel()
    gc.collect()
    assert gone() is None
    assert len(timers) == 0


async def test_many_due_timers_let_other_tasks_run(nursery: trio.Nursery, autojump_clock) -> None:
    timers = TimerQueue()
    nursery.start_soon(timers.run)
    ran: list[int] = []
    with counting_turns() as turns:
        for _ in range(10 * CALLBACKS_MAX):
            timers.add(1.0, lambda: ran.append(turns.count))
        await trio.sleep(2)
    assert len(ran) == 10 * CALLBACKS_MAX
    assert max(Counter(ran).values()) == CALLBACKS_MAX


def test_a_callback_is_not_interrupted_by_ctrl_c() -> None:
    ran: list[str] = []

    def callback() -> None:
        ran.append("begun")
        signal.raise_signal(signal.SIGINT)
        ran.append("ended")

    async def main() -> None:
        timers = TimerQueue()
        timers.add(0.0, callback)
        with trio.move_on_after(1):
            await timers.run()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert ran == ["begun", "ended"]
