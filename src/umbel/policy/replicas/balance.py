"""Load balancing: which replica of an upstream gets the next attempt.

``usable`` leaves out replicas, and a ``Picker`` picks one of the others. ``Picker.follow`` must be called whenever the
set of replicas changes.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Protocol

from .replica_load import ReplicaLoads
from .replica_state import ReplicaState, ReplicaT

_credit = attrgetter("credit")
_place = attrgetter("place")


class Picker(Protocol):
    """Load-balancing policy: picks one of several replicas."""

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Adopt ``replicas`` as the set."""

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """Pick one of ``replicas``: a part of the set, in its order, not empty."""


def usable(
    replicas: Sequence[ReplicaT], down: Collection[str], out: Collection[str], tried: Collection[str]
) -> Sequence[ReplicaT]:
    """The replicas that may be picked; empty only if ``replicas`` is empty.

    Three rules leave out replicas, in this order. A rule that would leave none is skipped.

    Args:
        down: names of replicas that are down by their health checks. If all are down, the rule is skipped (panic mode:
            a wrong health check must not stop a service).
        out: names of ejected replicas.
        tried: names of replicas that the call has tried.
    """
    for left_out in (down, out, tried):
        if left_out:
            replicas = [replica for replica in replicas if replica.name not in left_out] or replicas
    return replicas


class RoundRobin:
    """Round robin, beginning with the first replica. A change of the set keeps the order of turns."""

    __slots__ = ("_next", "_replicas")

    def __init__(self) -> None:
        self._replicas: Sequence[ReplicaState] = ()
        self._next = 0

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Adopt the set. The next turn is that of the first replica in turn that stays."""
        due = [*self._replicas[self._next :], *self._replicas[: self._next]]
        self._replicas = replicas
        for place, replica in enumerate(replicas):
            replica.place = place
        staying = frozenset(replicas)
        self._next = next((replica.place for replica in due if replica in staying), 0)

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """Pick the first of ``replicas`` after the one that was picked last; after the last of the set, the first."""
        index = bisect_left(replicas, self._next, key=_place)
        replica = replicas[index if index < len(replicas) else 0]
        self._next = replica.place + 1
        return replica


class WeightedRoundRobin:
    """Smooth weighted round robin, as in nginx: replicas are picked in proportion to their weights, evenly spread.

    If the sum of the weights is S, then S picks from the same ``replicas`` pick each replica as many times as its
    weight. A replica's *credit* is the number of picks that are still due to it, times the sum of the weights.
    """

    __slots__ = ()

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Adopt the set, and bound each credit: what was due to a replica that left is not spread over the others."""
        total = sum(replica.weight for replica in replicas)
        for replica in replicas:
            replica.credit = max(-total, min(replica.credit, total))

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """Add each replica's weight to its credit; pick the highest credit, and subtract all weights from it."""
        total = 0
        for replica in replicas:
            total += replica.weight
            replica.credit += replica.weight
        best = max(replicas, key=_credit)
        best.credit -= total
        return best


class PowerOfTwo:
    """Power of two choices: the less loaded of two random replicas (Mitzenmacher, "The Power of Two Choices", 2001).

    The load is nearly as even as if each pick took the least loaded replica of all, but picks at the same moment do not
    all take the same one. A failing replica counts as more loaded than one that is not failing: with little traffic
    every replica is idle, also the one that has failed.
    """

    __slots__ = ("_loads", "_rng")

    def __init__(self, loads: ReplicaLoads, rng: random.Random) -> None:
        self._loads = loads
        self._rng = rng

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Do nothing: this policy has no state."""

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """Pick the less loaded of two random replicas."""
        count = len(replicas)
        if count == 1:
            return replicas[0]
        random = self._rng.random
        first = int(random() * count)
        second = int(random() * (count - 1))
        one, other = replicas[first], replicas[second + (second >= first)]
        loads = self._loads
        failing = loads.failing(now, one)
        if failing is not loads.failing(now, other):
            return other if failing else one
        return other if loads.of(now, other) < loads.of(now, one) else one
