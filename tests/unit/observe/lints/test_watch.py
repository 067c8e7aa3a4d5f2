"""The lints of a program: each kind is found where it is, and nothing is found in a program without them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_util import periodic

from umbel.observe.lints import watch as module
from umbel.observe.lints.lint import Lint
from umbel.observe.lints.tasks import GROWTH_S, ObservedQueue
from umbel.observe.lints.watch import LintWatch


@asynccontextmanager
async def watching(watch: LintWatch | None = None) -> AsyncIterator[LintWatch]:
    watch = LintWatch("main") if watch is None else watch
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel(reason="the test is over")


async def looked(watch: LintWatch, seconds: float, every: float = 1.0) -> list[Lint]:
    """Look once a second for so many seconds; return the lints of the last look."""
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        await watch.look()
        await trio.sleep(every)
    return await watch.look()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread does, which may take long on a busy machine."""
    with trio.fail_after(20):
        async with aclosing(periodic(0.002)) as looks:
            async for _ in looks:
                if condition():
                    break


async def begun(watch: LintWatch) -> None:
    """Look until the thread watches the steps: on a busy machine one look may end before the thread has begun."""
    with trio.fail_after(20):
        async with aclosing(periodic(0.002)) as looks:
            async for _ in looks:
                await watch.look()
                if watch._steps._own_delay is not None:
                    break


def blocks(seconds: float) -> None:
    time.sleep(seconds)  # This line holds the event loop.


def line_of(text: str) -> int:
    """The number of the line of this file that contains the text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


async def test_a_step_over_10_ms_is_found_with_its_line_and_its_task() -> None:
    async def slow_handler() -> None:
        blocks(0.08)

    async with watching() as watch:
        await begun(watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow_handler)
        await until(watch.lints)
        [lint] = watch.lints()
    assert lint.name == "long-step"
    assert lint.where == f"lints/test_watch.py:{line_of('holds the event loop.')} in blocks"
    assert "slow_handler" in lint.detail
    assert (lint.process, lint.count, lint.ongoing) == ("main", 1, False)


async def test_a_step_is_shown_with_its_line_while_it_lasts() -> None:
    seen: list[Lint] = []

    def ask(watch: LintWatch) -> None:
        time.sleep(0.1)
        seen.extend(watch.lints())

    async with watching() as watch:
        await begun(watch)
        thread = threading.Thread(target=ask, args=[watch])
        thread.start()
        blocks(0.3)
        thread.join()
    [lint] = seen
    assert (lint.ongoing, lint.name) == (True, "long-step")
    assert lint.where.endswith(f":{line_of('holds the event loop.')} in blocks")
    assert lint.detail.startswith("for ")


async def test_steps_of_one_place_are_counted_together() -> None:
    async with watching() as watch:
        await begun(watch)
        for _ in range(3):
            blocks(0.08)
            await trio.sleep(0.02)
        await until(watch.lints)
        [lint] = watch.lints()
    assert lint.count >= 2  # On a busy machine the thread may see two of them as one late look.
    assert lint.first > lint.last


async def test_many_short_steps_in_one_turn_are_a_lag() -> None:
    async def short() -> None:
        blocks(0.002)

    async with watching() as watch:
        await begun(watch)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(short)
        await until(watch.lints)
        # On a busy machine one of them may be a long step too, but it explains less than half of the turn.
        [lint] = [lint for lint in watch.lints() if lint.name == "lag"]
    assert lint.detail.startswith("a turn took ")


class WaitsForACore:
    """A thread that has waited for a core all the time."""

    def __init__(self, thread: int) -> None:
        """Take any thread."""

    def read(self) -> float:
        return time.perf_counter()

    def close(self) -> None:
        """Nothing is open."""


async def test_time_in_which_the_loop_waits_for_a_core_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.observe.lints.steps._RunDelay", WaitsForACore)
    async with watching() as watch:
        await begun(watch)
        blocks(0.08)
        await trio.sleep(0.02)
        assert watch.lints() == []


async def test_an_idle_program_has_no_lints() -> None:
    async with watching() as watch:
        await watch.look()
        for _ in range(20):
            await trio.sleep(0.01)
        assert watch.lints() == []


async def test_thread_and_instrument_end_when_nobody_has_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTENTION_S", 0.3)

    def samplers() -> int:
        return sum(thread.name.startswith("umbel-steps") for thread in threading.enumerate())

    async with watching() as watch:
        assert samplers() == 0
        await begun(watch)
        assert samplers() == 1
        await until(lambda: samplers() == 0)
        await begun(watch)
        assert samplers() == 1
        # The time in which nothing was watched is no turn.
        assert watch.lints() == []
    assert samplers() == 0


async def test_a_look_while_the_watching_ends_begins_it_anew() -> None:
    async with watching() as watch:
        await begun(watch)
        assert watch._attention is not None
        watch._attention.cancel(reason="its time is over")  # The task that watches has not run since.
        await watch.look()
        await until(lambda: watch._attention is not None and not watch._attention.cancel_called)
        await until(lambda: watch._steps._own_delay is not None)


async def test_a_nursery_that_only_grows_is_found(autojump_clock: MockClock) -> None:
    async def leaky_server() -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep(0.5)

    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(leaky_server)
        assert await looked(watch, GROWTH_S - 2) == []
        [lint] = await looked(watch, 10)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert (lint.name, lint.count) == ("growing-nursery", 1)
    assert "in test_a_nursery_that_only_grows_is_found.<locals>.leaky_server" in lint.where
    assert "tasks (trio.sleep_forever), " in lint.detail


async def test_a_nursery_whose_tasks_end_is_not_found(autojump_clock: MockClock) -> None:
    async def server() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(10_000):
                # Forty tasks at a time, in waves.
                nursery.start_soon(trio.sleep, 10 if number % 40 else 12)
                await trio.sleep(0.25)

    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(server)
        assert await looked(watch, 120) == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_shield_without_deadline_is_found_with_the_cancel_that_waits(autojump_clock: MockClock) -> None:
    async def cleans_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(cleans_up)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="the test is over")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 100):
            assert await watch.look() == []
            [lint] = await looked(watch, 5)
    assert (lint.name, lint.count) == ("open-shield", 1)
    assert "cleans_up" in lint.where
    assert lint.detail.endswith(", while a cancel waits at it")


async def test_shields_with_a_deadline_and_short_ones_are_not_found(autojump_clock: MockClock) -> None:
    async def with_deadline() -> None:
        with trio.move_on_after(50, shield=True):
            await trio.sleep_forever()

    async def in_short() -> None:
        while True:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            await trio.sleep(0.5)

    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(with_deadline)
        nursery.start_soon(in_short)
        assert await looked(watch, 20) == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_channel_whose_senders_wait_is_found(autojump_clock: MockClock) -> None:
    send, receive = trio.open_memory_channel[int](3)

    async def produces() -> None:
        while True:
            await send.send(1)

    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(produces)
        nursery.start_soon(produces)
        assert await watch.look() == []
        [lint] = await looked(watch, 5)
        assert (lint.name, lint.count) == ("full-queue", 1)
        assert "in test_a_channel_whose_senders_wait_is_found.<locals>.produces" in lint.where
        assert lint.detail == "3 of 3 places are taken, and 2 senders wait"
        nursery.cancel_scope.cancel(reason="the test is over")
    receive.close()


async def test_a_channel_with_room_or_without_a_queue_is_not_found(autojump_clock: MockClock) -> None:
    send, receive = trio.open_memory_channel[int](3)
    hand, taken = trio.open_memory_channel[int](0)
    send.send_nowait(1)
    async with watching() as watch, trio.open_nursery() as nursery:
        nursery.start_soon(hand.send, 1)
        assert await looked(watch, 10) == []
        nursery.cancel_scope.cancel(reason="the test is over")
    receive.close()
    taken.close()


async def test_a_limiter_without_a_free_place_is_found(autojump_clock: MockClock) -> None:
    limiter = trio.CapacityLimiter(2)

    async def works() -> None:
        async with limiter:
            await trio.sleep_forever()

    async with watching() as watch, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(works)
        await wait_all_tasks_blocked()
        assert await watch.look() == []
        [lint] = await looked(watch, 5)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert (lint.name, lint.count) == ("busy-limiter", 1)
    assert "works" in lint.where
    assert lint.detail == "2 of 2 places are taken, and 3 tasks wait"


async def test_a_saturated_limiter_of_threads_names_what_holds_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    threads = trio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 2

    async def blocks_a_thread() -> None:
        await trio.to_thread.run_sync(released.wait)

    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(module, "COST_FACTOR", 0.0)
    monkeypatch.setattr("umbel.observe.lints.tasks.FULL_S", 0.05)
    async with watching() as watch, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(blocks_a_thread)
        await trio.sleep(0.01)
        lints = [lint for lint in await looked(watch, 0.1, every=0.02) if lint.name == "busy-limiter"]
        released.set()
    [lint] = lints
    assert lint.where == "trio's limiter of threads"
    assert lint.detail.startswith("2 of 2 places are taken, and 1 task waits; 2 in a thread for lints/test_watch.py:")
    assert "blocks_a_thread" in lint.detail


async def test_a_queue_that_loses_items_is_found(autojump_clock: MockClock) -> None:
    queues = [ObservedQueue("log access", 10, 7)]
    async with watching(LintWatch("main", lambda: queues)) as watch:
        assert await looked(watch, 3) == []
        queues[0] = ObservedQueue("log access", 10, 9)
        [lint] = await looked(watch, 3)
    assert (lint.name, lint.where, lint.count) == ("full-queue", "log access", 1)
    assert lint.detail == "2 were lost since the look before, and 10 wait"


async def test_looks_are_at_most_one_a_second(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async with watching() as watch:
        real = watch._tasks.look

        async def counted() -> None:
            looks.append(trio.current_time())
            await real()

        monkeypatch.setattr(watch._tasks, "look", counted)
        await looked(watch, 5, every=0.1)
    assert 5 <= len(looks) <= 7


async def test_a_look_at_many_tasks_lets_others_run_in_between() -> None:
    turns, ended = 0, trio.Event()

    async def count_turns() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1
            await trio.lowlevel.checkpoint()

    async with watching() as watch, trio.open_nursery() as nursery:
        for _ in range(5_000):
            nursery.start_soon(trio.sleep_forever)
        await wait_all_tasks_blocked()
        nursery.start_soon(count_turns)
        before = turns
        await watch.look()
        ended.set()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert turns - before >= 5
