"""Idle timer of a connection: a deadline that each request moves by one assignment.

The assignment does not move the timer in the queue. If that timer fires before the deadline, it is set again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..net.timers import Timer, TimerQueue


class IdleTimer:
    """Calls ``ended()`` in the timer queue's task at the time ``until`` (trio's clock), which is infinite at first.

    ``until`` may be assigned infinity at any time, and, while ``timer_at`` is finite, a time that is not before
    ``timer_at``. For any other time call ``set``. When ``ended`` is called, ``until`` is ``-math.inf``.
    """

    __slots__ = ("_ended", "_timer", "_timers", "timer_at", "until")

    def __init__(self, timers: TimerQueue, ended: Callable[[], None]) -> None:
        self._timers = timers
        self._ended = ended
        self._timer: Timer | None = None
        self.timer_at = math.inf
        """When the timer in the queue fires; infinite if there is none."""
        self.until = math.inf

    def set(self, until: float) -> None:
        """Move ``until`` to any time."""
        self.until = until
        if until < self.timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self.timer_at = until
            self._timer = self._timers.add(until, self._check)

    def cancel(self) -> None:
        """Stop the timer: ``ended`` is not called."""
        self.until = self.timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """The callback of the queue's timer: call ``ended``, or set the timer for a later ``until``."""
        self._timer, self.timer_at = None, math.inf
        if self.until > trio.current_time():
            if self.until < math.inf:
                self.set(self.until)
        else:
            self.until = -math.inf
            self._ended()
