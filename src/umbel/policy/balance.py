"""Which replica is next: pure decisions, no clock and no I/O.

Asked by ``upstream/balance.py`` once per attempt. Knows places in a list, nothing of what stands there.
"""

from __future__ import annotations


class RoundRobin:
    """Takes ``count`` replicas in turn, beginning with the first."""

    __slots__ = ("_count", "_next")

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError("there must be a replica to take")
        self._count = count
        self._next = 0

    def pick(self) -> int:
        """The place of the replica that is next."""
        place = self._next
        self._next = (place + 1) % self._count
        return place
