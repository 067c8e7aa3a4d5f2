"""When to look again at something that has a lifetime: pure decisions, no clock and no I/O.

All times are in seconds.
"""

from __future__ import annotations

FIRST_PAUSE = 1.0
"""After the first failure in a row; each further one doubles it."""


class Refresh:
    """A lifetime is followed within ``floor`` and ``ceiling``; failures back off, to the ceiling at most."""

    __slots__ = ("_ceiling", "_floor", "failures")

    def __init__(self, floor: float, ceiling: float) -> None:
        if not 0 < floor <= ceiling:
            raise ValueError("the floor of a lifetime is over nothing and not over its ceiling")
        self._floor = floor
        self._ceiling = ceiling
        self.failures = 0
        """In a row."""

    def succeeded(self, lifetime: float) -> float:
        """The pause after a success that holds for ``lifetime``."""
        self.failures = 0
        return self._within(lifetime)

    def failed(self, lifetime: float | None = None) -> float:
        """The pause after a failure. Where part of it succeeded, that part's ``lifetime`` may be nearer."""
        # Beyond this the power of two is over any ceiling, and would not be a float for ever.
        pause = self._within(FIRST_PAUSE * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return pause if lifetime is None else min(pause, self._within(lifetime))

    def _within(self, seconds: float) -> float:
        return min(max(seconds, self._floor), self._ceiling)
