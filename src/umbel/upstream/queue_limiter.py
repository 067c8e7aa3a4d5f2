"""Concurrency limit with one bounded, fair queue.

As trio's semaphore, it grants a free place to the waiter that came first, and a waiter that leaves holds no place.
Unlike trio's semaphore, the number of places may change, and a waiter is a callback, so waiting needs no task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from .errors import Overflow

Granted = Callable[[float], object]
"""Callback of a waiter, called once with the time, after a place was taken for the waiter. Must not raise or wait."""


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """A snapshot of a ``QueueLimiter``."""

    capacity: int
    """Number of places."""
    in_use: int
    """Number of places that are taken."""
    waiting: int
    """Number of waiters."""
    overflowed: int
    """Waiters that were refused because the queue was full, since the limiter was created."""


class QueueLimiter:
    """Concurrency limit: ``capacity`` places, and a queue of at most ``max_waiting`` waiters.

    Raises:
        ValueError: ``capacity`` is less than 1, or ``max_waiting`` is negative.
    """

    __slots__ = ("_capacity", "_granting", "_max_waiting", "_overflowed", "_queue", "in_use")

    def __init__(self, capacity: int, max_waiting: int) -> None:
        if capacity < 1 or max_waiting < 0:
            raise ValueError(
                "the capacity must be at least 1 (max_concurrency, max_connections), "
                "and the length of the queue at least 0 (max_queue, max_waiting)"
            )
        self._capacity = capacity
        self._max_waiting = max_waiting
        self.in_use = 0
        """Number of places that are taken."""
        self._overflowed = 0
        # An OrderedDict, so that the first waiter is found, and any waiter is removed, in constant time.
        self._queue: OrderedDict[object, Granted] = OrderedDict()
        self._granting = False

    def take(self) -> bool:
        """Take a place if one is free. Return whether one was."""
        # A place can be free while others wait only within ``_grant_free_places``. A callback in there must not
        # overtake the waiters.
        if self.in_use < self._capacity and not self._queue:
            self.in_use += 1
            return True
        return False

    def queue(self, key: object, granted: Granted) -> None:
        """Queue a waiter, after ``take`` returned False. ``granted`` is called when a place was taken for the waiter.

        Args:
            key: names the waiter for ``leave``; hashable, and unique in the queue.

        Raises:
            Overflow: the queue is full.
        """
        if len(self._queue) >= self._max_waiting:
            self._overflowed += 1
            raise Overflow(f"the queue is full: {self.in_use} in flight, {self._max_waiting} waiting")
        self._queue[key] = granted

    def leave(self, key: object) -> bool:
        """Remove a waiter from the queue. Return False if it is not in the queue, because it was granted a place."""
        if self._queue.pop(key, None) is None:
            return False
        self._stopped_waiting(key)
        return True

    async def acquire(self) -> None:
        """Take a place; wait until one is free. No checkpoint if one is free at once. Cancelled, it holds no place.

        Raises:
            Overflow: the queue is full.
        """
        if self.take():
            return
        task = trio.lowlevel.current_task()
        self.queue(task, lambda _: trio.lowlevel.reschedule(task))

        def leave(_: object) -> trio.lowlevel.Abort:
            # trio does not abort a task that is already rescheduled, so a task with a place never gets here.
            self.leave(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def release(self) -> None:
        """Release a place, and grant it to the first waiter."""
        self.in_use -= 1
        if self._queue:
            self._grant_free_places()

    def resize(self, capacity: int) -> None:
        """Set the number of places. Grants new places to waiters; takes no place away that is in use."""
        self._capacity = capacity
        self._grant_free_places()

    @property
    def capacity(self) -> int:
        """Number of places."""
        return self._capacity

    def statistics(self) -> SlotStatistics:
        """A snapshot."""
        return SlotStatistics(self._capacity, self.in_use, len(self._queue), self._overflowed)

    def _grant_free_places(self) -> None:
        """Grant free places to waiters, in a loop: a granted callback may release its place at once."""
        if self._granting:
            return  # Called within ``granted`` of the loop below, which then grants the released place. No recursion.
        self._granting = True
        now = trio.current_time()
        try:
            while self._queue and self.in_use < self._capacity:
                key, granted = self._queue.popitem(last=False)
                self.in_use += 1
                self._stopped_waiting(key)
                granted(now)
        finally:
            self._granting = False

    def _stopped_waiting(self, key: object) -> None:
        """Hook for subclasses: ``key`` was removed from the queue, because it was granted a place or left."""
