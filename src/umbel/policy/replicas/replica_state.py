"""State of one replica of a set, as the policies keep it.

Each attribute is changed only by the policy that it belongs to.
"""

from __future__ import annotations

import math
from typing import TypeVar


class ReplicaState:
    """The policies' state of one replica. It is equal to itself alone."""

    __slots__ = (
        "back_at",
        "credit",
        "died_at",
        "ejections",
        "failing_until",
        "failovers",
        "in_flight",
        "lingering_ends",
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
        """Unique within a set."""
        self.weight = weight
        """How often it is taken, compared with the others (``balance.WeightedRoundRobin``)."""

        # Load balancing (balance.py)
        self.place = 0
        self.credit = 0

        # Load (replica_load.py)
        self.in_flight = 0
        self.usual: float | None = None
        """Moving average of its response times in seconds; None before the first."""
        self.lingering_ends: list[float] = []
        """Ended attempts that still count as in flight: a heap of the times when they stop to count."""
        self.failing_until = -math.inf
        """When its last failure stops counting; long ago if it has answered since."""
        self.overtaken = 0
        """How often in a row the next attempt was overtaken too."""
        self.overtaken_at = -math.inf
        """When the last in the row was."""
        self.overtaken_age = 0.0
        """Seconds that it was old then. A quicker answer ends the row."""

        # Ejection (ejection.py)
        self.streak = 0
        """Failures in a row."""
        self.ejections = 0
        """Those that are not forgotten yet."""
        self.back_at = -math.inf
        """When its last ejection is over, or was."""

        # Failover (failover.py)
        self.died_at = -math.inf
        """When the first connection of the last failure was lost."""
        self.failovers = 0
        """Failovers that are still granted for it."""


ReplicaT = TypeVar("ReplicaT", bound=ReplicaState)
