"""How soon a worker that died is replaced, and when the whole is degraded because too many die.

Pure: the time and the chance are given to it.
"""

from __future__ import annotations

from collections import deque
from random import Random

STABLE_S = 10.0
"""A worker that was ready for so long before it died had started well: the next one starts at once."""
FIRST_DELAY_S = 0.1
_DOUBLINGS_MAX = 30
"""Far beyond any cap; it keeps the power from growing without a bound."""


class Backoff:
    """The waits of one slot between a death and the next start: at most 0.1 * 2^k seconds, at random (full jitter)."""

    def __init__(self, max_delay: float) -> None:
        self.max_delay = max_delay
        self.failures = 0
        """Deaths in a row of workers that were not ready for ``STABLE_S``."""

    def after_death(self, ready_for: float | None, random: Random, *, degraded: bool = False) -> float:
        """Seconds to wait; ``ready_for`` is how long the dead worker was ready, None if it never was.

        Degraded, it is always the longest wait.
        """
        if ready_for is not None and ready_for >= STABLE_S:
            self.failures = 0
            return 0.0
        exponent = min(self.failures, _DOUBLINGS_MAX)
        self.failures += 1
        if degraded:
            return self.max_delay
        return random.uniform(0.0, min(self.max_delay, FIRST_DELAY_S * 2**exponent))

    def reset(self) -> None:
        """Somebody asks for a start now: what was before does not count."""
        self.failures = 0


class Intensity:
    """Counts the restarts of all slots within a window of seconds, as long as they matter."""

    def __init__(self, restarts: int, window: float) -> None:
        self._restarts = restarts
        self._window = window
        self._times: deque[float] = deque()

    def add(self, now: float, slots: int) -> bool:
        """Count a restart; whether there were more than ``restarts`` for each of the slots within the window."""
        self._times.append(now)
        allowed = self._restarts * slots
        while self._times[0] <= now - self._window or len(self._times) > allowed + 1:
            self._times.popleft()
        return len(self._times) > allowed

    def clear(self) -> None:
        """All is well again: count from nothing."""
        self._times.clear()
