"""One task that calls many back, each at its time.

Used by the hedge layer, whose calls nearly all end before their time: a reminder that is dropped in time costs a push
onto a heap, and neither a task, nor a scope, nor a wake-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

import trio

DROPPED_MAX = 64
"""Dropped reminders that may stay in the heap, however few live ones there are."""


class Reminder:
    """Something to be called at its time, once, unless it is dropped before."""

    __slots__ = ("_alarm", "_call")

    def __init__(self, alarm: Alarm, call: Callable[[], object]) -> None:
        self._alarm = alarm
        self._call: Callable[[], object] | None = call

    @property
    def is_dropped(self) -> bool:
        """Whether nothing will come of it."""
        return self._call is None

    def drop(self) -> None:
        """Do not call. Nothing happens if it has been called, or was dropped before."""
        if self._call is not None:
            self._call = None
            self._alarm._dropped_one()

    def _ring(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Alarm:
    """Calls back at given times of ``trio.current_time()``, for as long as its ``run`` does.

    Like a task per reminder that sleeps until its time, but for one task in all. What is called is a plain function; it
    must not raise, which would be a bug that ends ``run``.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Reminder]] = []
        # Of reminders for one time the first comes first; they are never compared themselves.
        self._numbers = count()
        self._dropped = 0
        self._sleep = trio.CancelScope()

    def __len__(self) -> int:
        """Reminders whose time is still to come."""
        return len(self._heap) - self._dropped

    def remind(self, at: float, call: Callable[[], object]) -> Reminder:
        """Call ``call()`` at the time ``at``, or as soon as ``run`` gets to it."""
        reminder = Reminder(self, call)
        heappush(self._heap, (at, next(self._numbers), reminder))
        # A scope's deadline may be moved while a task sleeps under it. It is rarely done: the times of calls that were
        # made one after the other mostly come one after the other.
        if at < self._sleep.deadline:
            self._sleep.deadline = at
        return reminder

    def _dropped_one(self) -> None:
        """Forget the dropped ones when they are most of the heap: a constant cost for each, and a bound for all."""
        self._dropped += 1
        if self._dropped > DROPPED_MAX and self._dropped * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].is_dropped]
            heapify(self._heap)
            self._dropped = 0

    async def run(self) -> None:
        """Sleep and call, until it is cancelled."""
        while True:
            self._ring_due(trio.current_time())
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._sleep:
                await trio.sleep_forever()

    def _ring_due(self, now: float) -> None:
        """Call whose time has come, and take what was dropped off the heap's top: nobody wakes up for that."""
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].is_dropped):
            _, _, reminder = heappop(self._heap)
            if reminder.is_dropped:
                self._dropped -= 1
            else:
                reminder._ring()
