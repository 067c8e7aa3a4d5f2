"""The backoff between a worker's death and the next start, and the restart intensity. Pure.

The time and the source of randomness are arguments.
"""

from __future__ import annotations

from collections import deque
from random import Random

STABLE_S = 10.0
"""Seconds: the death of a worker that was not ready for so long counts as a failure."""
FIRST_DELAY_S = 0.1
"""The bound in seconds on the delay after a first failure."""
_DOUBLINGS_MAX = 30
"""A bound on the exponent; the delay reaches ``max_delay`` long before."""


class Backoff:
    """The delays of one slot between a worker's death and the next start: exponential, with full jitter.

    A worker that was ready for ``STABLE_S`` is restarted without delay. After a failure that follows k others in a row,
    the delay is random between 0 and the smaller of ``FIRST_DELAY_S`` * 2^k and ``max_delay``, in seconds.
    """

    def __init__(self, max_delay: float) -> None:
        self.max_delay = max_delay
        self.failures = 0
        """The number of deaths in a row of workers that were not ready for ``STABLE_S``."""

    def after_death(self, ready_for: float | None, random: Random, *, degraded: bool = False) -> float:
        """Count a death; return the delay in seconds.

        Args:
            ready_for: the seconds for which the worker was ready; None if it never was.
            random: the source of the jitter.
            degraded: whether the delay after a failure is ``max_delay``, without jitter.
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
        """Forget the failures: the next delay is a first one."""
        self.failures = 0


class RestartIntensity:
    """The number of restarts of all slots together within a sliding window, and its limit.

    Args:
        restarts: the limit divided by the number of slots. One slot alone may use up the limit of all.
        window: the length of the window in seconds.
    """

    def __init__(self, restarts: int, window: float) -> None:
        self._restarts = restarts
        self._window = window
        self._times: deque[float] = deque()

    def add(self, now: float, slots: int) -> bool:
        """Count a restart; return whether the window now holds more than ``restarts`` * ``slots``.

        ``now`` is in seconds, from the same clock at each call.
        """
        self._times.append(now)
        allowed = self._restarts * slots
        while self._times[0] <= now - self._window or len(self._times) > allowed + 1:
            self._times.popleft()
        return len(self._times) > allowed

    def clear(self) -> None:
        """Forget all restarts."""
        self._times.clear()
