"""Health of a replica: up or down, by the checks that it passed and failed in a row. No clock."""

from __future__ import annotations


class HealthState:
    """Health of one replica: up until ``unhealthy`` checks in a row failed, then down until ``healthy`` passed."""

    __slots__ = ("_against", "_healthy", "_unhealthy", "up")

    def __init__(self, *, healthy: int = 2, unhealthy: int = 3) -> None:
        if healthy < 1 or unhealthy < 1:
            raise ValueError("healthy and unhealthy are numbers of checks, 1 at least")
        self._healthy = healthy
        self._unhealthy = unhealthy
        self._against = 0
        """Checks in a row that contradict ``up``."""
        self.up = True

    def checked(self, passed: bool) -> bool:
        """Count the result of a check; whether ``up`` has changed."""
        if passed is self.up:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._unhealthy if self.up else self._healthy):
            return False
        self.up = passed
        self._against = 0
        return True
