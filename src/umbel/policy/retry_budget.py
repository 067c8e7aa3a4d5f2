"""Retry budget: a bound on the retries and hedges in flight of an upstream, as a share of its active calls (Envoy)."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Floating point may give slightly less than the exact product: 0.29 * 100 is 28.999999999999996.
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot of a budget."""

    active: int
    """Active calls: those in flight for which there are rules of retries or hedges."""
    extra: int
    """Retries, from the beginning of their pause, and hedges in flight."""
    limit: float
    """Number of retries and hedges that may be in flight with the present number of active calls."""
    denied: int
    """Retries and hedges that were refused, since the budget was created."""


class Budget:
    """Retry budget: grants a retry or hedge while fewer than ``max(minimum, ratio * active calls)`` are in flight.

    A call is active from ``enter`` to ``leave``. So failures add at most the share ``ratio`` to the load of a busy
    upstream. ``minimum`` is for an upstream with few calls, whose share is less than one. The bound applies when a
    retry or hedge is granted. A granted one goes on, even if other calls end and the share shrinks.

    The numbers are Envoy's: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto

    Args:
        ratio: share of the active calls; ``math.inf``: no bound.
        minimum: number that is granted even if the share is smaller.

    Raises:
        ValueError: a number is negative.
    """

    __slots__ = ("_calls", "_denied", "_extra", "_minimum", "_ratio")

    def __init__(self, ratio: float = 0.2, minimum: int = 3) -> None:
        if not ratio >= 0:
            raise ValueError(f"the ratio of a retry budget must be 0 or more, not {ratio}")
        if minimum < 0:
            raise ValueError(f"the minimum of a retry budget must be 0 or more, not {minimum}")
        self._ratio = ratio
        self._minimum = minimum
        # Identities of the active calls.
        self._calls: set[int] = set()
        self._extra = 0
        self._denied = 0

    def enter(self, call: object) -> bool:
        """Count ``call`` as active. Return False if it already is."""
        key = id(call)
        if key in self._calls:
            return False
        self._calls.add(key)
        return True

    def leave(self, call: object) -> None:
        """Stop counting ``call``. To be called once for each ``enter`` that returned True."""
        self._calls.remove(id(call))

    def take(self) -> bool:
        """Charge a retry or hedge if the bound permits. Return whether it did; if so, ``give_back`` must follow."""
        if self._extra >= self._limit():
            self._denied += 1
            return False
        self._extra += 1
        return True

    def give_back(self) -> None:
        """Give back a retry or hedge that has ended, or is not made after all.

        Raises:
            ValueError: nothing is charged.
        """
        if not self._extra:
            raise ValueError("more was given back to the retry budget than was taken")
        self._extra -= 1

    def _limit(self) -> float:
        if self._ratio == math.inf:
            return math.inf
        return max(self._minimum, math.floor(self._ratio * len(self._calls) + _EPSILON))

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        return BudgetStatistics(len(self._calls), self._extra, self._limit(), self._denied)
