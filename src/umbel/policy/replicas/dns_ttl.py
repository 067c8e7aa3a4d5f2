"""When to look up a DNS name again: its lifetime within bounds, and backoff after failures. No clock and no I/O.

All times are in seconds.
"""

from __future__ import annotations

FIRST_PAUSE = 1.0
"""Pause after the first failure in a row; each further one doubles it."""


class RefreshSchedule:
    """Pauses between look-ups: the lifetime within ``floor`` and ``ceiling``, or the backoff, at most ``ceiling``."""

    __slots__ = ("_ceiling", "_floor", "failures")

    def __init__(self, floor: float, ceiling: float) -> None:
        if not 0 < floor <= ceiling:
            raise ValueError("the floor of a lifetime is over nothing and not over its ceiling")
        self._floor = floor
        self._ceiling = ceiling
        self.failures = 0
        """In a row."""

    def succeeded(self, lifetime: float) -> float:
        """The pause after an answer that is valid for ``lifetime``."""
        self.failures = 0
        return self._within(lifetime)

    def failed(self, lifetime: float | None = None) -> float:
        """The pause after a failure; at most ``lifetime`` where a part of the look-up succeeded."""
        # Beyond this the power of two is over any ceiling, and would not be a float for ever.
        pause = self._within(FIRST_PAUSE * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return pause if lifetime is None else min(pause, self._within(lifetime))

    def _within(self, seconds: float) -> float:
        return min(max(seconds, self._floor), self._ceiling)
