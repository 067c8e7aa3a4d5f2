"""How long a client that sends nothing is waited for: a deadline that is put off with every request, at no cost.

Used by ``http1.py``, one per connection. The time is only noted; the reminder looks at it when its own time has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..upstream.alarm import Alarm, Reminder


class Patience:
    """Calls ``ended()`` at the time ``until``, which may be moved at will. Forward it is set, backward by ``last``.

    Once that has been called, ``until`` is before all time, until it is moved again.
    """

    __slots__ = ("_alarm", "_ended", "_reminder", "reminded_at", "until")

    def __init__(self, alarm: Alarm, ended: Callable[[], None]) -> None:
        self._alarm = alarm
        self._ended = ended
        self._reminder: Reminder | None = None
        self.reminded_at = math.inf
        self.until = math.inf

    def last(self, until: float) -> None:
        """Be patient until then, and no longer."""
        self.until = until
        if until < self.reminded_at:
            if self._reminder is not None:
                self._reminder.drop()
            self.reminded_at = until
            self._reminder = self._alarm.remind(until, self._look_at_the_time)

    def forget(self) -> None:
        """Call no more."""
        self.until = self.reminded_at = math.inf
        if self._reminder is not None:
            self._reminder.drop()
            self._reminder = None

    def _look_at_the_time(self) -> None:
        self._reminder, self.reminded_at = None, math.inf
        if self.until > trio.current_time():
            if self.until < math.inf:
                self.last(self.until)
        else:
            self.until = -math.inf
            self._ended()
