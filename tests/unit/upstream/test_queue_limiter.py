"""The queue limiter: places, waiters as callbacks and as tasks, and changes of the capacity."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from umbel.upstream.errors import Overflow
from umbel.upstream.queue_limiter import QueueLimiter


def full(waiting: int = 100) -> QueueLimiter:
    """One place, which is taken."""
    limiter = QueueLimiter(1, waiting)
    assert limiter.take()
    return limiter


async def test_a_released_place_is_granted_to_the_first_waiter() -> None:
    limiter, granted = full(), []
    for name in "abc":
        assert not limiter.take()
        limiter.queue(name, lambda _, name=name: granted.append(name))
    for seen in ("a", "ab", "abc"):
        limiter.release()
        assert "".join(granted) == seen
        assert limiter.in_use == 1
    limiter.release()
    assert limiter.in_use == 0
    assert limiter.take()


async def test_a_waiter_that_left_is_not_granted_and_a_granted_waiter_cannot_leave() -> None:
    limiter, granted = full(), []
    for name in "abc":
        limiter.queue(name, lambda _, name=name: granted.append(name))
    assert limiter.leave("b")
    assert not limiter.leave("b")
    limiter.release()
    assert not limiter.leave("a")
    limiter.release()
    assert granted == ["a", "c"]
    assert (limiter.in_use, limiter.statistics().waiting) == (1, 0)


def test_a_waiter_beyond_max_waiting_is_an_overflow_that_is_counted() -> None:
    limiter = full(waiting=1)
    limiter.queue("a", lambda _: None)
    with pytest.raises(Overflow, match="1 in flight, 1 waiting"):
        limiter.queue("b", lambda _: None)
    statistics = limiter.statistics()
    assert (statistics.capacity, statistics.in_use, statistics.waiting, statistics.overflowed) == (1, 1, 1, 1)


async def test_waiters_that_release_their_place_at_once_do_not_grow_the_stack() -> None:
    limiter, served = full(waiting=100_000), 0

    def serve(now: float) -> None:
        nonlocal served
        served += 1
        limiter.release()

    for number in range(100_000):
        limiter.queue(number, serve)
    limiter.release()
    assert served == 100_000
    assert limiter.in_use == 0


async def test_a_request_within_a_granted_callback_does_not_overtake_waiters() -> None:
    limiter, granted = full(), []

    def serve(now: float) -> None:
        granted.append("a")
        limiter.release()
        assert not limiter.take()
        limiter.queue("late", lambda _: granted.append("late"))

    limiter.queue("a", serve)
    limiter.queue("b", lambda _: granted.append("b"))
    limiter.release()
    limiter.release()
    assert granted == ["a", "b", "late"]


@pytest.mark.parametrize(("capacity", "waiting"), [(0, 1), (1, -1)])
def test_a_capacity_below_one_or_a_negative_queue_is_refused(capacity: int, waiting: int) -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        QueueLimiter(capacity, waiting)


# Tasks that wait


async def test_a_larger_capacity_wakes_as_many_tasks_and_a_smaller_one_wakes_none(autojump_clock) -> None:
    limiter = full()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(limiter.acquire)
        await trio.testing.wait_all_tasks_blocked()
        limiter.resize(3)
        assert (limiter.in_use, limiter.statistics().waiting) == (3, 2)
        limiter.resize(1)  # Fewer than are in use: no waiter is woken until enough places are released.
        for left in (2, 1):
            limiter.release()
            assert (limiter.in_use, limiter.statistics().waiting) == (left, 2)
        limiter.release()
        assert (limiter.in_use, limiter.statistics().waiting) == (1, 1)
        limiter.release()
    limiter.release()
    assert (limiter.in_use, limiter.statistics().waiting) == (0, 0)


async def test_a_task_that_is_cancelled_while_it_waits_holds_no_place() -> None:
    limiter = full()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="enough")
    assert (limiter.in_use, limiter.statistics().waiting) == (1, 0)
    limiter.release()
    assert limiter.in_use == 0


async def test_a_task_granted_a_place_holds_it_though_cancelled_in_the_same_turn() -> None:
    limiter, held = full(), 0

    async def wait() -> None:
        nonlocal held
        await limiter.acquire()
        held += 1
        limiter.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        limiter.release()
        nursery.cancel_scope.cancel(reason="enough")
    assert (held, limiter.in_use) == (1, 0)
