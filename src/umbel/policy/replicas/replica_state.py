"""The data that the policies keep for one replica. A comment names the policy that each attribute belongs to."""

from __future__ import annotations

import math
from typing import TypeVar


class ReplicaState:
    """The data that the policies keep for one replica. Compared by identity."""

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
        """Number of attempts relative to other replicas (``balance.WeightedRoundRobin``)."""

        # Load balancing (balance.py)
        self.place = 0
        """Index in the set."""
        self.credit = 0
        """Picks that are still due to the replica, times the sum of the weights (``balance.WeightedRoundRobin``)."""

        # Load (replica_load.py)
        self.in_flight = 0
        """Number of attempts in flight."""
        self.usual: float | None = None
        """Moving average of response times in seconds; None before the first response."""
        self.lingering_ends: list[float] = []
        """Ended attempts that still count as load: a heap of the times at which each stops counting."""
        self.failing_until = -math.inf
        """Time at which the last failure stops counting; -inf after a response."""
        self.overtaken = 0
        """Number of overtaken attempts in a row."""
        self.overtaken_at = -math.inf
        """Time at which the last attempt of the row was overtaken."""
        self.overtaken_age = 0.0
        """Seconds that the last attempt of the row had lasted. A faster response ends the row."""

        # Ejection (ejection.py)
        self.streak = 0
        """Number of failures in a row."""
        self.ejections = 0
        """Number of ejections that are not forgotten."""
        self.back_at = -math.inf
        """Time of the end of the last ejection."""

        # Failover (failover.py)
        self.died_at = -math.inf
        """Time at which the present WINDOW_SECONDS began: the first lost connection in it."""
        self.failovers = 0
        """Number of failovers that are still granted in this time."""


ReplicaT = TypeVar("ReplicaT", bound=ReplicaState)
