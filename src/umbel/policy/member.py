"""One replica of a set, as the policies know it.

Made by ``upstream/balance.py`` when the replica comes, and changed only by the policy that a field belongs to. It
decides nothing.
"""

from __future__ import annotations

import math
from typing import TypeVar


class Member:
    """A replica's part of what the policies keep. It is equal to itself alone."""

    __slots__ = (
        "back_at",
        "credit",
        "died_at",
        "ejections",
        "failed_last",
        "failovers",
        "failures",
        "in_flight",
        "name",
        "place",
        "streak",
        "usual",
        "weight",
    )

    def __init__(self, name: str, weight: int = 1) -> None:
        self.name = name
        """No two of a set have the same."""
        self.weight = weight
        """How often it is taken, compared with the others (``balance.Weighted``)."""

        # Of the ways to take turns (balance.py)
        self.place = 0
        self.credit = 0

        # Of its load (load.py)
        self.in_flight = 0
        self.usual: float | None = None
        """Seconds that its answers take; None before the first."""
        self.failures: list[float] = []
        """Of each failure, when it stops counting: a heap, the next to stop comes first."""
        self.failed_last = False

        # Of its ejections (ejection.py)
        self.streak = 0
        """Failures in a row."""
        self.ejections = 0
        """Those that are not forgotten yet."""
        self.back_at = -math.inf
        """When its last ejection is over, or was."""

        # Of what it takes with it (failover.py)
        self.died_at = -math.inf
        """When the first connection of the last lot was lost."""
        self.failovers = 0
        """Repeats of that lot that are still granted."""


M = TypeVar("M", bound=Member)
