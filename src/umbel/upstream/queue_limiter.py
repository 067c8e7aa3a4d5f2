"""Concurrency limit with one bounded, fair queue: so many places, and waiters that get them first come, first served.

Like trio's semaphore it hands a free place to the first waiter, and a waiter that leaves never holds one. Unlike it,
the number of places may change, and a waiter is a callback: waiting needs no task.
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
    """A snapshot of a ``QueueLimiter``."""

    capacity: int
    in_use: int
    waiting: int
    overflowed: int
    """Waiters that were refused because the queue was full, since the beginning."""


class QueueLimiter:
    """``capacity`` places, and a queue of at most ``max_waiting`` waiters.

    Raises:
        ValueError: numbers out of range.
    """

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
        """Take a place if one is free; whether it was."""
        # A place is free while others wait only inside of a grant; a caller in there must not overtake them.
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
        """Take a waiter out of the queue; False if it is not there (any more): then it holds a place."""
        if self._queue.pop(key, None) is None:
            return False
        self._stopped_waiting(key)
        return True

    async def acquire(self) -> None:
        """Take a place; wait in this task until one is free. No checkpoint if one is free. Cancelled, it holds none.

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
        """Set the number of places. If more are in use, the surplus goes as places are released."""
        self._capacity = capacity
        self._grant_free_places()

    @property
    def capacity(self) -> int:
        """The number of places."""
        return self._capacity

    def statistics(self) -> SlotStatistics:
        """A snapshot."""
        return SlotStatistics(self._capacity, self.in_use, len(self._queue), self._overflowed)

    def _grant_free_places(self) -> None:
        """Give free places to waiters, in a loop and not by recursion: a grant may release its place at once."""
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
        """Hook: ``key`` is out of the queue, because it got a place or left. For subclasses that count waiters."""
