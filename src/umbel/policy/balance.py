"""Which replica is next: pure decisions, no clock and no I/O.

Asked by ``upstream/balance.py`` once per attempt. Knows places in a list, nothing of what stands there.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Protocol

from .load import Loads


class Picker(Protocol):
    """A way to take one of several replicas."""

    def pick(self, now: float, places: Sequence[int]) -> int:
        """One of ``places``, which are in order and at least one."""


def usable(places: Sequence[int], down: Collection[int], out: Collection[int], tried: Collection[int]) -> Sequence[int]:
    """The places to pick from: never none.

    Each rule holds only while it leaves somebody. Those that are ``down`` by their health checks go first, and if all
    are, none is taken to be (panic mode: a broken check must not take a service away). Then those that are ejected
    (``out``), so that never the last is; then those that this call has ``tried``.
    """
    for left_out in (down, out, tried):
        if left_out:
            places = [place for place in places if place not in left_out] or places
    return places


class RoundRobin:
    """Takes the replicas in turn, beginning with the first."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def pick(self, now: float, places: Sequence[int]) -> int:
        """The first of ``places`` whose turn it is, counted from the one behind the last that was taken."""
        index = bisect_left(places, self._next)
        place = places[index if index < len(places) else 0]
        self._next = place + 1
        return place


class Weighted:
    """Takes each replica as often as its weight says, as evenly spread as can be (nginx's smooth weighted round robin).

    Of as many turns as the weights' sum, with the same ``places``, each has exactly its weight.
    """

    __slots__ = ("_credits", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or min(weights) < 1:
            raise ValueError("each replica needs a weight, of 1 at least")
        self._weights = tuple(weights)
        self._credits = [0] * len(weights)

    def pick(self, now: float, places: Sequence[int]) -> int:
        """The one of ``places`` that is owed the most; it pays for all of them."""
        total = 0
        for place in places:
            total += self._weights[place]
            self._credits[place] += self._weights[place]
        best = max(places, key=self._credits.__getitem__)
        self._credits[best] -= total
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

    def pick(self, now: float, places: Sequence[int]) -> int:
        """One of ``places``."""
        count = len(places)
        if count == 1:
            return places[0]
        random = self._rng.random
        first = int(random() * count)
        second = int(random() * (count - 1))
        one, other = places[first], places[second + (second >= first)]
        loads = self._loads
        failing = loads.failing(now, one)
        if failing is not loads.failing(now, other):
            return other if failing else one
        return other if loads.of(now, other) < loads.of(now, one) else one
