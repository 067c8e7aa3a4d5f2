"""Idle timeout of a connection: a deadline that every request puts off, at the cost of one assignment.

A request only notes the new deadline. The timer of the queue compares it with the clock when the timer fires.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..net.timers import Timer, TimerQueue


class IdleTimer:
    """Calls ``ended()`` at the time ``until`` (trio's clock).

    To move ``until`` to a later time, assign it; to an earlier one, call ``set``. After the call of ``ended``,
    ``until`` is ``-math.inf`` until it is moved again.
    """

    __slots__ = ("_ended", "_timer", "_timers", "timer_at", "until")

    def __init__(self, timers: TimerQueue, ended: Callable[[], None]) -> None:
        self._timers = timers
        self._ended = ended
        self._timer: Timer | None = None
        self.timer_at = math.inf
        self.until = math.inf

    def set(self, until: float) -> None:
        """Move ``until``, also to an earlier time."""
        self.until = until
        if until < self.timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self.timer_at = until
            self._timer = self._timers.add(until, self._check)

    def cancel(self) -> None:
        """Stop the timer."""
        self.until = self.timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer, self.timer_at = None, math.inf
        if self.until > trio.current_time():
            if self.until < math.inf:
                self.set(self.until)
        else:
            self.until = -math.inf
            self._ended()
