"""Whether a replica is up, by the checks that it passed and failed in a row.

Told of each check's end. No clock, and no idea of what a check is.
"""

from __future__ import annotations


class Standing:
    """One replica's standing: up until ``unhealthy`` checks in a row failed, then down until ``healthy`` passed."""

    __slots__ = ("_against", "_healthy", "_unhealthy", "up")

    def __init__(self, *, healthy: int = 2, unhealthy: int = 3) -> None:
        if healthy < 1 or unhealthy < 1:
            raise ValueError("healthy and unhealthy are numbers of checks, 1 at least")
        self._healthy = healthy
        self._unhealthy = unhealthy
        self._against = 0
        """Checks in a row that spoke against its standing."""
        self.up = True

    def checked(self, passed: bool) -> bool:
        """Take a check's end; whether the standing changed."""
        if passed is self.up:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._unhealthy if self.up else self._healthy):
            return False
        self.up = passed
        self._against = 0
        return True
