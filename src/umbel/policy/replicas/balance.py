"""Which replica is next: pure decisions, no clock and no I/O.

A policy is asked once per attempt, and told when the set of replicas is another one.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Protocol

from .replica_load import Loads
from .replica_state import M, Member

_credit = attrgetter("credit")
_place = attrgetter("place")


class Picker(Protocol):
    """A way to take one of several replicas."""

    def follow(self, members: Sequence[Member]) -> None:
        """The set is this one from now on."""

    def pick(self, now: float, members: Sequence[M]) -> M:
        """One of ``members``: some of the set, in its order, and at least one."""


def usable(members: Sequence[M], down: Collection[str], out: Collection[str], tried: Collection[str]) -> Sequence[M]:
    """The members to pick from; none only of none.

    Names say who is left out, and each rule holds only while it leaves somebody. Those that are ``down`` by their
    health checks go first, and if all are, none is taken to be (panic mode: a broken check must not take a service
    away). Then those that are ejected (``out``), so that never the last is; then those that this call has ``tried``.
    """
    for left_out in (down, out, tried):
        if left_out:
            members = [member for member in members if member.name not in left_out] or members
    return members


class RoundRobin:
    """Takes the replicas in turn, beginning with the first. Another set changes no one's turn among those that stay."""

    __slots__ = ("_members", "_next")

    def __init__(self) -> None:
        self._members: Sequence[Member] = ()
        self._next = 0

    def follow(self, members: Sequence[Member]) -> None:
        """The turn is the next one's that stays."""
        due = [*self._members[self._next :], *self._members[: self._next]]
        self._members = members
        for place, member in enumerate(members):
            member.place = place
        staying = frozenset(members)
        self._next = next((member.place for member in due if member in staying), 0)

    def pick(self, now: float, members: Sequence[M]) -> M:
        """The first of ``members`` whose turn it is, counted from the one behind the last that was taken."""
        index = bisect_left(members, self._next, key=_place)
        member = members[index if index < len(members) else 0]
        self._next = member.place + 1
        return member


class Weighted:
    """Takes each replica as often as its weight says, as evenly spread as can be (nginx's smooth weighted round robin).

    Of as many turns as the weights' sum, with the same ``members``, each has exactly its weight.
    """

    __slots__ = ()

    def follow(self, members: Sequence[Member]) -> None:
        """Nobody is owed, or owes, more than a round of the new set: a heavy one that leaves is not made up for."""
        total = sum(member.weight for member in members)
        for member in members:
            member.credit = max(-total, min(member.credit, total))

    def pick(self, now: float, members: Sequence[M]) -> M:
        """The one of ``members`` that is owed the most; it pays for all of them."""
        total = 0
        for member in members:
            total += member.weight
            member.credit += member.weight
        best = max(members, key=_credit)
        best.credit -= total
        return best


class PowerOfTwo:
    """Takes the less loaded of two replicas that chance picked (Mitzenmacher, "The Power of Two Choices", 2001).

    Nearly as even as always taking the least loaded, and never a herd that runs to it. One that is failing is more
    loaded than any that is not: of a fast and little used upstream every replica is idle, the one that died as well.
    """

    __slots__ = ("_loads", "_rng")

    def __init__(self, loads: Loads, rng: random.Random) -> None:
        self._loads = loads
        self._rng = rng

    def follow(self, members: Sequence[Member]) -> None:
        """It keeps nothing of them."""

    def pick(self, now: float, members: Sequence[M]) -> M:
        """One of ``members``."""
        count = len(members)
        if count == 1:
            return members[0]
        random = self._rng.random
        first = int(random() * count)
        second = int(random() * (count - 1))
        one, other = members[first], members[second + (second >= first)]
        loads = self._loads
        failing = loads.failing(now, one)
        if failing is not loads.failing(now, other):
            return other if failing else one
        return other if loads.of(now, other) < loads.of(now, one) else one
