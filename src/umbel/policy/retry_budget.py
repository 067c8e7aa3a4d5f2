"""Retry budget: a bound on an upstream's retries and hedges in flight, as a share of its active calls (as Envoy's).

One budget is shared by the retries and the hedges of an upstream. It has no clock: it counts what is in flight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# ratio * active may fall a hair under the whole number that is meant: 0.29 * 100 is 28.999999999999996.
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """Snapshot of a budget."""

    active: int
    """Calls in flight."""
    extra: int
    """Retries (their back-off included) and hedges in flight."""
    limit: float
    """Retries and hedges that may be in flight, with so many active calls."""
    denied: int
    """Retries and hedges that the budget refused, since the beginning."""


class Budget:
    """Grants another attempt while those in flight are fewer than ``max(minimum, ratio * active calls)``.

    A burst of failures so costs the upstream at most ``ratio`` more load, while a quiet upstream, of whose few calls no
    share is a whole one, still gets its ``minimum``. The bound is asked where an attempt is granted: one that was
    granted goes on when other calls end and the share shrinks.

    The numbers are Envoy's: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto

    Args:
        ratio: the share; ``math.inf`` grants everything.
        minimum: granted whatever the share is.
    """

    __slots__ = ("_calls", "_denied", "_extra", "_minimum", "_ratio")

    def __init__(self, ratio: float = 0.2, minimum: int = 3) -> None:
        if not ratio >= 0:
            raise ValueError(f"a budget's ratio is not negative, as {ratio} is")
        if minimum < 0:
            raise ValueError(f"a budget's minimum is not negative, as {minimum} is")
        self._ratio = ratio
        self._minimum = minimum
        # By identity.
        self._calls: set[int] = set()
        self._extra = 0
        self._denied = 0

    def enter(self, call: object) -> bool:
        """Count ``call`` as active. False if it is counted already."""
        key = id(call)
        if key in self._calls:
            return False
        self._calls.add(key)
        return True

    def leave(self, call: object) -> None:
        """Count ``call`` no longer. Once per call for which ``enter`` returned True."""
        self._calls.remove(id(call))

    def take(self) -> bool:
        """Whether another attempt may be made; it is then counted until ``give_back``."""
        if self._extra >= self._limit():
            self._denied += 1
            return False
        self._extra += 1
        return True

    def give_back(self) -> None:
        """An attempt that was granted has ended, or is not made after all."""
        if not self._extra:
            raise ValueError("more given back than was taken")
        self._extra -= 1

    def _limit(self) -> float:
        if self._ratio == math.inf:
            return math.inf
        return max(self._minimum, math.floor(self._ratio * len(self._calls) + _EPSILON))

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        return BudgetStatistics(len(self._calls), self._extra, self._limit(), self._denied)
