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

    def __init__(self) -> None:
        self.failures = 0
        """The number of deaths in a row of workers that were not ready for ``STABLE_S``."""

    def after_death(
        self, ready_for: float | None, max_delay: float, random: Random, *, degraded: bool = False
    ) -> float:
        """Count a death; return the delay in seconds.

        Args:
            ready_for: the seconds for which the worker was ready; None if it never was.
            max_delay: the longest delay in seconds; it may differ from call to call.
            random: the source of the jitter.
            degraded: whether the delay after a failure is ``max_delay``, without jitter.
        """
        if ready_for is not None and ready_for >= STABLE_S:
            self.failures = 0
            return 0.0
        exponent = min(self.failures, _DOUBLINGS_MAX)
        self.failures += 1
        if degraded:
            return max_delay
        return random.uniform(0.0, min(max_delay, FIRST_DELAY_S * 2**exponent))

    def reset(self) -> None:
        """Forget the failures: the next delay is a first one."""
        self.failures = 0


class RestartIntensity:
    """The restarts of all slots together within a sliding window, compared with a limit.

    Limit and window may differ from call to call. Restarts that were outside of the window at one call, or more than
    one beyond its limit, are not counted at later calls.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float, allowed: int, window: float) -> bool:
        """Count a restart; return whether the window now holds more than ``allowed``.

        Args:
            now: the time in seconds, from the same clock at each call.
            allowed: the limit for all slots together. One slot alone may use it up.
            window: the length of the window in seconds.
        """
        self._times.append(now)
        while self._times[0] <= now - window or len(self._times) > allowed + 1:
            self._times.popleft()
        return len(self._times) > allowed

    def clear(self) -> None:
        """Forget all restarts."""
        self._times.clear()
