"""Back-off between a worker's death and the next start, and the restart intensity, above which the master is degraded.

Pure: time and random source are arguments.
"""

from __future__ import annotations

from collections import deque
from random import Random

STABLE_S = 10.0
"""A worker that dies after it was ready for so many seconds is replaced at once."""
FIRST_DELAY_S = 0.1
_DOUBLINGS_MAX = 30
"""Far above any cap; it bounds the power."""


class Backoff:
    """The delays of one slot between a death and the next start: exponential, with full jitter.

    A delay is random, at most ``FIRST_DELAY_S`` * 2^k seconds after k failures, and at most ``max_delay``.
    """

    def __init__(self, max_delay: float) -> None:
        self.max_delay = max_delay
        self.failures = 0
        """Deaths in a row of workers that were not ready for ``STABLE_S``."""

    def after_death(self, ready_for: float | None, random: Random, *, degraded: bool = False) -> float:
        """Count a death; gives the seconds to wait.

        Args:
            ready_for: the seconds for which the worker was ready; None if it never was.
            random: the source of the jitter.
            degraded: whether the delay is ``max_delay``, without jitter.
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
        """Forget the failures: a start was asked for."""
        self.failures = 0


class RestartIntensity:
    """Counts the restarts of all slots within a sliding window of seconds."""

    def __init__(self, restarts: int, window: float) -> None:
        self._restarts = restarts
        self._window = window
        self._times: deque[float] = deque()

    def add(self, now: float, slots: int) -> bool:
        """Count a restart; says whether there were more than ``restarts`` * ``slots`` within the window."""
        self._times.append(now)
        allowed = self._restarts * slots
        while self._times[0] <= now - self._window or len(self._times) > allowed + 1:
            self._times.popleft()
        return len(self._times) > allowed

    def clear(self) -> None:
        """Forget all restarts."""
        self._times.clear()
