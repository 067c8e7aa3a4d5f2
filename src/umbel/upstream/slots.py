"""A number of places and one bounded, fair queue before them.

Used by the bulkhead and by a pool that stands alone. trio's semaphore does the work: it hands a free place to the
waiter that came first, and a waiter that is cancelled never holds one.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from .errors import Overflow


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """A snapshot of ``Slots``."""

    capacity: int
    in_use: int
    waiting: int
    overflowed: int
    """How many found the queue full, since the beginning."""


class Slots:
    """``capacity`` places; at most ``max_waiting`` wait for one, first come, first served."""

    __slots__ = ("_capacity", "_max_waiting", "_overflowed", "_semaphore")

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._overflowed = 0
        self._semaphore = trio.Semaphore(capacity, max_value=capacity)

    async def acquire(self) -> None:
        """Take a place, waiting for one if need be. No checkpoint if one is free. Cancelled, it holds none.

        Raises:
            Overflow: the queue is full.
        """
        try:
            self._semaphore.acquire_nowait()
        except trio.WouldBlock as error:
            if self._semaphore.statistics().tasks_waiting >= self._max_waiting:
                self._overflowed += 1
                raise Overflow(f"{self._capacity} in flight and {self._max_waiting} waiting") from error
        else:
            return
        await self._semaphore.acquire()

    def release(self) -> None:
        """Give a place back: to the first waiter, if there is one."""
        self._semaphore.release()

    @property
    def unused(self) -> bool:
        """Whether nobody holds a place or waits for one."""
        return self._semaphore.value == self._capacity

    def statistics(self) -> SlotStatistics:
        """A snapshot."""
        waiting = self._semaphore.statistics().tasks_waiting
        return SlotStatistics(self._capacity, self._capacity - self._semaphore.value, waiting, self._overflowed)
