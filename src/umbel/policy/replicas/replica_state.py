"""One replica of a set, as the policies know it.

Made when the replica comes, and changed only by the policy that a field belongs to. It decides nothing.
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
        "failing_until",
        "failovers",
        "ghosts",
        "in_flight",
        "name",
        "overtaken",
        "overtaken_age",
        "overtaken_at",
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
        self.ghosts: list[float] = []
        """Of each end that counts on as if it were in flight, when it stops: a heap, the next to stop comes first."""
        self.failing_until = -math.inf
        """When its last failure stops counting; long ago if it has answered since."""
        self.overtaken = 0
        """How often in a row the next attempt was overtaken too."""
        self.overtaken_at = -math.inf
        """When the last in the row was."""
        self.overtaken_age = 0.0
        """Seconds that it was old then. A quicker answer ends the row."""

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
