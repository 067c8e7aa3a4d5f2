"""Health of a replica: up or down, by the health checks that it passed or failed in a row."""

from __future__ import annotations


class HealthState:
    """Health of one replica: up until ``unhealthy`` checks in a row failed, down until ``healthy`` in a row passed.

    Raises:
        ValueError: a number is less than 1.
    """

    __slots__ = ("_against", "_healthy", "_unhealthy", "up")

    def __init__(self, *, healthy: int = 2, unhealthy: int = 3) -> None:
        if healthy < 1 or unhealthy < 1:
            raise ValueError("healthy and unhealthy must be at least 1")
        self._healthy = healthy
        self._unhealthy = unhealthy
        self._against = 0
        """Number of checks in a row whose result contradicts ``up``."""
        self.up = True

    def checked(self, passed: bool) -> bool:
        """Count the result of a check. Return whether ``up`` has changed."""
        if passed is self.up:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._unhealthy if self.up else self._healthy):
            return False
        self.up = passed
        self._against = 0
        return True
