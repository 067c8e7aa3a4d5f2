"""Time of the next look-up of a DNS name: the TTL within bounds, and exponential backoff after failures."""

from __future__ import annotations

FIRST_PAUSE = 1.0
"""Pause in seconds after the first failure; each further failure in a row doubles it."""


class RefreshSchedule:
    """Pauses between look-ups: the TTL, or the backoff after failures, within ``floor`` and ``ceiling`` in seconds.

    Raises:
        ValueError: not ``0 < floor <= ceiling``.
    """

    __slots__ = ("_ceiling", "_floor", "failures")

    def __init__(self, floor: float, ceiling: float) -> None:
        if not 0 < floor <= ceiling:
            raise ValueError("the smallest TTL (ttl_min) must be more than 0, and at most the largest TTL (ttl_max)")
        self._floor = floor
        self._ceiling = ceiling
        self.failures = 0
        """Number of failures in a row."""

    def succeeded(self, lifetime: float) -> float:
        """The pause after a success with a TTL of ``lifetime`` seconds."""
        self.failures = 0
        return self._within(lifetime)

    def failed(self, lifetime: float | None = None) -> float:
        """The pause after a failure; at most ``lifetime``, the TTL in seconds, if a part of the look-up succeeded."""
        # The exponent is bounded, because a large power is no float; the ceiling has applied long before.
        pause = self._within(FIRST_PAUSE * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return pause if lifetime is None else min(pause, self._within(lifetime))

    def _within(self, seconds: float) -> float:
        return min(max(seconds, self._floor), self._ceiling)
