"""Hedging: when a call gets another attempt while others are under way, and which attempt wins."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

from .retry import AttemptResult, RetryOn
from .retry_budget import Budget

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")
_RETRYABLE = RetryOn()


@dataclass(frozen=True, slots=True)
class HedgeRules:
    """Rules of hedging. Exactly one of ``seconds`` and ``quantile`` is set.

    Raises:
        ValueError: both or neither are set, or a number is out of range.
    """

    seconds: float | None = None
    """Delay between the beginnings of two attempts, in seconds."""
    quantile: float | None = None
    """Quantile of recent latencies that is the delay: 0.95 for p95."""
    max: int = 1
    """Number of hedges beside the first attempt, and again beside each retry; 0: no hedging."""

    def __post_init__(self) -> None:
        if (self.seconds is None) is (self.quantile is None):
            raise ValueError("the delay of a hedge is either a duration or a percentile")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ValueError(f"the delay of a hedge must be finite and not negative, not {self.seconds}")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ValueError(f"a quantile must be between 0 and 1, not {self.quantile}")
        if self.max < 0:
            raise ValueError(f"the number of hedges must not be negative, not {self.max}")

    @classmethod
    def of(cls, after: float | str, max: int = 1) -> HedgeRules:
        """Make rules from a delay in seconds, or from a percentile such as ``"p95"`` or ``"p99.9"``.

        Raises:
            ValueError: ``after`` is a text but no percentile, or a number is out of range; the message is one sentence.
            TypeError: ``after`` is neither a number nor a text.
        """
        if not isinstance(after, str):
            return cls(seconds=float(after), max=max)
        found = _PERCENTILE.fullmatch(after)
        if found is None or not float(found[1]):
            raise ValueError(
                f"{after!r} is not a delay; give seconds as a number (0.02) or a percentile above p0 and below p100"
                ' ("p95")'
            )
        return cls(quantile=float(found[1]) / 100, max=max)


class HedgeVerdict(enum.Enum):
    """Meaning of an attempt's result for its race."""

    SUCCESS = "a response that wins the race"
    RETRYABLE = "a failure that another attempt may avoid, so a hedge may start at once"
    FAILURE = "a failure that another attempt would repeat; attempts under way go on"


def hedge_verdict(result: AttemptResult) -> HedgeVerdict:
    """The verdict on a result: SUCCESS for a status below 500; RETRYABLE for what ``RetryOn()`` covers; else FAILURE.

    A retryable result with Retry-After is a FAILURE, because a hedge cannot wait as the upstream asks; a retry can.
    """
    if result.kind is None and result.status is not None and result.status < 500:
        return HedgeVerdict.SUCCESS
    return HedgeVerdict.RETRYABLE if _RETRYABLE.covers(result) and not result.retry_after else HedgeVerdict.FAILURE


class RaceEntry(enum.Enum):
    """Role of an attempt in a race."""

    FIRST = "the first attempt of the race"
    HEDGE = "a further attempt, which the budget granted"
    FAILOVER = "a further attempt that replaces one lost with a failing replica, without budget (policy/failover.py)"


class Race:
    """Concurrent attempts of one call; the first success wins. A race begins with one attempt under way.

    ============ =================== ===============================================================
    state        an attempt ends as  effect
    ============ =================== ===============================================================
    running      SUCCESS             the race is over: this attempt has won, the others have lost
    running      RETRYABLE           a further attempt may start at once (``another``)
    running      any failure         the race is over if no attempt is under way
    over         anything            none: the result is too late
    ============ =================== ===============================================================

    If all attempts fail, the first attempt's failure is the result. So hedging can turn a failure into a success, but
    never one failure into another.

    Args:
        max: largest number of further attempts.
        budget: grants the further attempts that are no failover.
    """

    __slots__ = ("_budget", "_hedges", "_max", "over", "running")

    def __init__(self, max: int, budget: Budget) -> None:
        self._max = max
        self._budget = budget
        self._hedges = 0
        self.running = 1
        """Number of attempts under way."""
        self.over = False
        """Whether no further attempt may start."""

    def another(self, *, failover: bool = False) -> RaceEntry | None:
        """Add an attempt if race and budget permit. Return its role; None if it may not be made.

        Args:
            failover: whether the attempt is failover, which needs no budget.
        """
        if not self.may_grow or not (failover or self._budget.take()):
            return None
        self._hedges += 1
        self.running += 1
        return RaceEntry.FAILOVER if failover else RaceEntry.HEDGE

    def ended(self, verdict: HedgeVerdict | None, entry: RaceEntry) -> bool:
        """Count the end of an attempt. Return whether it has won.

        After RETRYABLE the caller may ask for ``another``, and must then call ``settle``.

        Args:
            verdict: None for an attempt that was cut or ended with an internal error; it ends the race.
            entry: the attempt's role; a HEDGE is given back to the budget.
        """
        self.running -= 1
        if entry is RaceEntry.HEDGE:
            self._budget.give_back()
        if verdict is HedgeVerdict.SUCCESS and not self.over:
            self.over = True
            return True
        if verdict is None or (verdict is HedgeVerdict.FAILURE and not self.running):
            self.over = True
        return False

    def settle(self) -> None:
        """End the race if no attempt is under way: after RETRYABLE, if ``another`` has added none."""
        if not self.running:
            self.over = True

    def stop(self) -> None:
        """End the race, although attempts may be under way."""
        self.over = True

    @property
    def may_grow(self) -> bool:
        """Whether the race permits another attempt."""
        return not self.over and self._hedges < self._max
