from __future__ import annotations

import pytest
import trio
import trio.testing

from umbel.upstream.calls.queue_limiter import Slots
from umbel.upstream.errors import Overflow


def full(waiting: int = 100) -> Slots:
    """One place, which is taken."""
    slots = Slots(1, waiting)
    assert slots.take()
    return slots


def test_a_place_given_back_goes_to_the_waiter_that_came_first() -> None:
    slots, granted = full(), []
    for name in "abc":
        assert not slots.take()
        slots.queue(name, lambda name=name: granted.append(name))
    for seen in ("a", "ab", "abc"):
        slots.release()
        assert "".join(granted) == seen
        assert slots.in_use == 1
    slots.release()
    assert slots.in_use == 0
    assert slots.take()


def test_who_leaves_the_queue_is_never_granted_and_who_was_granted_cannot_leave() -> None:
    slots, granted = full(), []
    for name in "abc":
        slots.queue(name, lambda name=name: granted.append(name))
    assert slots.leave("b")
    assert not slots.leave("b")
    slots.release()
    assert not slots.leave("a")
    slots.release()
    assert granted == ["a", "c"]
    assert (slots.in_use, slots.statistics().waiting) == (1, 0)


def test_one_more_than_may_wait_is_an_overflow_that_is_counted() -> None:
    slots = full(waiting=1)
    slots.queue("a", lambda: None)
    with pytest.raises(Overflow, match="1 in flight and 1 waiting"):
        slots.queue("b", lambda: None)
    statistics = slots.statistics()
    assert (statistics.capacity, statistics.in_use, statistics.waiting, statistics.overflowed) == (1, 1, 1, 1)


def test_waiters_that_give_their_place_back_at_once_do_not_grow_the_stack() -> None:
    slots, served = full(waiting=100_000), 0

    def serve() -> None:
        nonlocal served
        served += 1
        slots.release()

    for number in range(100_000):
        slots.queue(number, serve)
    slots.release()
    assert served == 100_000
    assert slots.in_use == 0


def test_whoever_asks_inside_of_a_grant_does_not_pass_those_that_wait() -> None:
    slots, granted = full(), []

    def serve() -> None:
        granted.append("a")
        slots.release()
        assert not slots.take()
        slots.queue("late", lambda: granted.append("late"))

    slots.queue("a", serve)
    slots.queue("b", lambda: granted.append("b"))
    slots.release()
    slots.release()
    assert granted == ["a", "b", "late"]


@pytest.mark.parametrize(("capacity", "waiting"), [(0, 1), (1, -1)])
def test_there_is_a_place_and_no_queue_shorter_than_empty(capacity: int, waiting: int) -> None:
    with pytest.raises(ValueError, match="there must be a place"):
        Slots(capacity, waiting)


# Tasks that wait


async def test_more_places_wake_as_many_tasks_as_there_is_room_for_and_fewer_wake_none(autojump_clock) -> None:
    slots = full()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(slots.acquire)
        await trio.testing.wait_all_tasks_blocked()
        slots.resize(3)
        assert (slots.in_use, slots.statistics().waiting) == (3, 2)
        slots.resize(1)  # Fewer than are in use: nobody is woken until they have gone.
        for left in (2, 1):
            slots.release()
            assert (slots.in_use, slots.statistics().waiting) == (left, 2)
        slots.release()
        assert (slots.in_use, slots.statistics().waiting) == (1, 1)
        slots.release()
    slots.release()
    assert (slots.in_use, slots.statistics().waiting) == (0, 0)


async def test_a_task_that_is_cancelled_while_it_waits_holds_no_place() -> None:
    slots = full()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.acquire)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="enough")
    assert (slots.in_use, slots.statistics().waiting) == (1, 0)
    slots.release()
    assert slots.in_use == 0


async def test_a_task_granted_a_place_holds_it_though_cancelled_in_the_same_turn() -> None:
    slots, held = full(), 0

    async def wait() -> None:
        nonlocal held
        await slots.acquire()
        held += 1
        slots.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        slots.release()
        nursery.cancel_scope.cancel(reason="enough")
    assert (held, slots.in_use) == (1, 0)
