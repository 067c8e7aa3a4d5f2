"""How long a client that sends nothing is waited for: a deadline that is put off with every request, at no cost.

The time is only noted; a timer of the queue looks at it when its own time has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..net.timers import Timer, TimerQueue


class IdleTimer:
    """Calls ``ended()`` at the time ``until``, which may be moved at will. Forward it is set, backward by ``set``.

    Once that has been called, ``until`` is before all time, until it is moved again.
    """

    __slots__ = ("_ended", "_timer", "_timers", "timer_at", "until")

    def __init__(self, timers: TimerQueue, ended: Callable[[], None]) -> None:
        self._timers = timers
        self._ended = ended
        self._timer: Timer | None = None
        self.timer_at = math.inf
        self.until = math.inf

    def set(self, until: float) -> None:
        """Be patient until then, and no longer."""
        self.until = until
        if until < self.timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self.timer_at = until
            self._timer = self._timers.add(until, self._check)

    def cancel(self) -> None:
        """Call no more."""
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
