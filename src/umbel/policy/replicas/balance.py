"""Load balancing: which replica of an upstream gets the next attempt. No clock and no I/O.

``pick`` is called once per attempt, ``follow`` whenever the set of replicas has changed.
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
    """Load-balancing policy: takes one of several replicas."""

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Take ``replicas`` for the set from now on."""

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """One of ``replicas``, which are some of the set in its order, and at least one."""


def usable(
    replicas: Sequence[ReplicaT], down: Collection[str], out: Collection[str], tried: Collection[str]
) -> Sequence[ReplicaT]:
    """The replicas to pick from; empty only if ``replicas`` is.

    The names say which are left out, and each rule holds only while it leaves a replica. First those that are ``down``
    by their health checks; if all are, none counts as down (panic mode: a broken check must not take a service away).
    Then those that are ejected (``out``), so that the last one is used all the same; then those that this call has
    ``tried``.
    """
    for left_out in (down, out, tried):
        if left_out:
            replicas = [replica for replica in replicas if replica.name not in left_out] or replicas
    return replicas


class RoundRobin:
    """Round robin, beginning with the first. A change of the set keeps the turns of the replicas that stay."""

    __slots__ = ("_next", "_replicas")

    def __init__(self) -> None:
        self._replicas: Sequence[ReplicaState] = ()
        self._next = 0

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Keep the turn, or give it to the next replica that stays."""
        due = [*self._replicas[self._next :], *self._replicas[: self._next]]
        self._replicas = replicas
        for place, replica in enumerate(replicas):
            replica.place = place
        staying = frozenset(replicas)
        self._next = next((replica.place for replica in due if replica in staying), 0)

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """The first of ``replicas`` behind the one that was taken last."""
        index = bisect_left(replicas, self._next, key=_place)
        replica = replicas[index if index < len(replicas) else 0]
        self._next = replica.place + 1
        return replica


class WeightedRoundRobin:
    """Smooth weighted round robin, as nginx's: each replica as often as its weight says, evenly spread.

    Of as many turns as the weights' sum, with the same ``replicas``, each has exactly its weight.
    """

    __slots__ = ()

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Bound each credit to one round of the new set, so that a heavy replica that left is not made up for."""
        total = sum(replica.weight for replica in replicas)
        for replica in replicas:
            replica.credit = max(-total, min(replica.credit, total))

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """The one of ``replicas`` with the highest credit, which then pays the weights of all of them."""
        total = 0
        for replica in replicas:
            total += replica.weight
            replica.credit += replica.weight
        best = max(replicas, key=_credit)
        best.credit -= total
        return best


class PowerOfTwo:
    """Power of two choices: the less loaded of two random replicas (Mitzenmacher, "The Power of Two Choices", 2001).

    Nearly as even as always taking the least loaded, without all callers taking the same one. A failing replica counts
    as more loaded than any other: of a fast and little used upstream every replica is idle, the failed one as well.
    """

    __slots__ = ("_loads", "_rng")

    def __init__(self, loads: ReplicaLoads, rng: random.Random) -> None:
        self._loads = loads
        self._rng = rng

    def follow(self, replicas: Sequence[ReplicaState]) -> None:
        """Do nothing: it has no state of its own."""

    def pick(self, now: float, replicas: Sequence[ReplicaT]) -> ReplicaT:
        """One of ``replicas``."""
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
