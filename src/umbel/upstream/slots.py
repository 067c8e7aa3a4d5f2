"""A number of places and one bounded, fair queue before them.

Used by the bulkhead and by a pool that stands alone. Like trio's semaphore it hands a free place to the waiter that
came first, and a waiter that is cancelled never holds one; unlike it, the number of places may change.
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

    __slots__ = ("_capacity", "_in_use", "_max_waiting", "_overflowed", "_queue")

    def __init__(self, capacity: int, max_waiting: int) -> None:
        if capacity < 1 or max_waiting < 0:
            raise ValueError("there must be a place, and the queue cannot be shorter than empty")
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._in_use = 0
        self._overflowed = 0
        self._queue = trio.lowlevel.ParkingLot()

    def take(self) -> bool:
        """Take a place if one is free."""
        # Nobody waits while a place is free: each that becomes free is handed on.
        if self._in_use < self._capacity:
            self._in_use += 1
            return True
        return False

    async def acquire(self) -> None:
        """Take a place, waiting for one if need be. No checkpoint if one is free. Cancelled, it holds none.

        Raises:
            Overflow: the queue is full.
        """
        if self.take():
            return
        if len(self._queue) >= self._max_waiting:
            self._overflowed += 1
            raise Overflow(f"{self._in_use} in flight and {self._max_waiting} waiting")
        # Whoever wakes us has taken the place for us; from then on no cancel can come before we return.
        await self._queue.park()

    def release(self) -> None:
        """Give a place back: to the first waiter, if there is one."""
        self._in_use -= 1
        if self._in_use >= self._capacity - 1:
            self._hand_on()  # Only where all were taken does anybody wait.

    def resize(self, capacity: int) -> None:
        """Have so many places from now on. Fewer than are in use: those go as they are given back."""
        self._capacity = capacity
        self._hand_on()

    @property
    def in_use(self) -> int:
        """Places that are taken."""
        return self._in_use

    @property
    def unused(self) -> bool:
        """Whether nobody holds a place or waits for one."""
        return self._in_use == 0 and not self._queue

    def statistics(self) -> SlotStatistics:
        """A snapshot."""
        return SlotStatistics(self._capacity, self._in_use, len(self._queue), self._overflowed)

    def _hand_on(self) -> None:
        while self._queue and self._in_use < self._capacity:
            self._in_use += 1
            self._queue.unpark()
