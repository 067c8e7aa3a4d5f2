"""A number of places and one bounded, fair queue before them.

Like trio's semaphore it hands a free place to the waiter that came first, and a waiter that leaves never holds one;
unlike it, the number of places may change, and a waiter is a function that is called: waiting needs no task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from .errors import Overflow

Granted = Callable[[], object]
"""Called once, when the waiter has a place. Must not raise and must not wait."""


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """A snapshot of ``QueueLimiter``."""

    capacity: int
    in_use: int
    waiting: int
    overflowed: int
    """How many found the queue full, since the beginning."""


class QueueLimiter:
    """``capacity`` places; at most ``max_waiting`` wait for one, first come, first served."""

    __slots__ = ("_capacity", "_granting", "_max_waiting", "_overflowed", "_queue", "in_use")

    def __init__(self, capacity: int, max_waiting: int) -> None:
        if capacity < 1 or max_waiting < 0:
            raise ValueError("there must be a place, and the queue cannot be shorter than empty")
        self._capacity = capacity
        self._max_waiting = max_waiting
        self.in_use = 0
        """Places that are taken."""
        self._overflowed = 0
        # By identity of the key; ordered, so that the first is found and any is removed in constant time.
        self._queue: OrderedDict[object, Granted] = OrderedDict()
        self._granting = False

    def take(self) -> bool:
        """Take a place if one is free."""
        # Nobody waits while a place is free, except inside of a grant: whoever asks there does not overtake.
        if self.in_use < self._capacity and not self._queue:
            self.in_use += 1
            return True
        return False

    def queue(self, key: object, granted: Granted) -> None:
        """Call ``granted`` once a place is taken for it. ``key`` names the waiter for ``leave``; by identity.

        Raises:
            Overflow: the queue is full.
        """
        if len(self._queue) >= self._max_waiting:
            self._overflowed += 1
            raise Overflow(f"{self.in_use} in flight and {self._max_waiting} waiting")
        self._queue[key] = granted

    def leave(self, key: object) -> bool:
        """Wait no longer; False if it does not wait (any more): then it holds a place."""
        if self._queue.pop(key, None) is None:
            return False
        self._stopped_waiting(key)
        return True

    async def acquire(self) -> None:
        """Take a place, waiting in this task if need be. No checkpoint if one is free. Cancelled, it holds none.

        Raises:
            Overflow: the queue is full.
        """
        if self.take():
            return
        task = trio.lowlevel.current_task()
        self.queue(task, lambda: trio.lowlevel.reschedule(task))

        def leave(_: object) -> trio.lowlevel.Abort:
            # Once woken a task is aborted no more: then it holds the place.
            self.leave(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def release(self) -> None:
        """Give a place back: to the first waiter, if there is one."""
        self.in_use -= 1
        if self._queue:
            self._grant_free_places()

    def resize(self, capacity: int) -> None:
        """Have so many places from now on. Fewer than are in use: those go as they are given back."""
        self._capacity = capacity
        self._grant_free_places()

    @property
    def capacity(self) -> int:
        """How many places there are."""
        return self._capacity

    def statistics(self) -> SlotStatistics:
        """A snapshot."""
        return SlotStatistics(self._capacity, self.in_use, len(self._queue), self._overflowed)

    def _grant_free_places(self) -> None:
        """Give free places to waiters."""
        if self._granting:
            return  # A waiter that ended at once gave its place back: the loop below goes on with it.
        self._granting = True
        try:
            while self._queue and self.in_use < self._capacity:
                key, granted = self._queue.popitem(last=False)
                self.in_use += 1
                self._stopped_waiting(key)
                granted()
        finally:
            self._granting = False

    def _stopped_waiting(self, key: object) -> None:
        """``key`` waits no longer: it has a place, or has left. For subclasses that count who waits."""
