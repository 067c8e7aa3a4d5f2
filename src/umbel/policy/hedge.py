"""Hedging: when a call gets another attempt beside those under way, and which attempt wins.

It knows neither how attempts are made nor how they are cancelled.
"""

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
    """Rules of hedging: when a call is hedged, and how often.

    Exactly one of ``seconds`` (a duration) and ``quantile`` (of the attempts of late: 0.95 for p95) says when. ``max``
    is the number of attempts beside the first; 0 switches hedging off.
    """

    seconds: float | None = None
    quantile: float | None = None
    max: int = 1

    def __post_init__(self) -> None:
        if (self.seconds is None) is (self.quantile is None):
            raise ValueError("a hedge comes after a duration or a percentile: one of them")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise ValueError(f"a hedge comes after a finite time that is not negative, unlike {self.seconds}")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ValueError(f"a quantile lies between 0 and 1, unlike {self.quantile}")
        if self.max < 0:
            raise ValueError(f"the number of hedges is not negative, as {self.max} is")

    @classmethod
    def of(cls, after: float | str, max: int = 1) -> HedgeRules:
        """``after`` as people write it: seconds, or a percentile such as ``"p95"`` or ``"p99.9"``.

        Raises:
            ValueError: one sentence.
        """
        if not isinstance(after, str):
            return cls(seconds=float(after), max=max)
        found = _PERCENTILE.fullmatch(after)
        if found is None or not float(found[1]):
            raise ValueError(f'{after!r} is neither seconds nor a percentile, such as 0.02 or "p95"')
        return cls(quantile=float(found[1]) / 100, max=max)


class HedgeVerdict(enum.Enum):
    """What the result of an attempt means for its race."""

    SUCCESS = "an answer: it wins, whatever else is under way"
    RETRYABLE = "a failure that another attempt may not meet"
    FAILURE = "a failure that another attempt would meet again; attempts under way go on"


def hedge_verdict(result: AttemptResult) -> HedgeVerdict:
    """The verdict on a result: a status below 500 is a success, the rest is as the table of kinds says.

    A result with Retry-After is a failure: a retry can wait for as long as the upstream asks, a hedge cannot.
    """
    if result.kind is None and result.status is not None and result.status < 500:
        return HedgeVerdict.SUCCESS
    return HedgeVerdict.RETRYABLE if _RETRYABLE.covers(result) and not result.retry_after else HedgeVerdict.FAILURE


class RaceEntry(enum.Enum):
    """Why an attempt is part of a race."""

    FIRST = "it is the first attempt of the race"
    HEDGE = "it was started beside the others, or for one that failed, and the budget granted it"
    FAILOVER = "it replaces one that a failing replica lost, which needs no budget (policy/failover.py)"


class Race:
    """Concurrent attempts of one call, of which the first success wins. It begins with one attempt under way.

    ========== =================== ==========================================================
    it is      an attempt ends as  and then
    ========== =================== ==========================================================
    on         SUCCESS             it is over: that one has won, the others have lost
    on         RETRYABLE           another may start at once (``another``), no matter the time
    on         any failure         it is over if none is under way any more
    over       anything            nothing: it came too late
    ========== =================== ==========================================================

    If all have failed, the first attempt's failure is the result. So a hedge turns a failure into a success, but never
    one failure into another: without a success, hedged and unhedged calls have the same result.
    """

    __slots__ = ("_budget", "_hedges", "_max", "over", "running")

    def __init__(self, max: int, budget: Budget) -> None:
        self._max = max
        self._budget = budget
        self._hedges = 0
        self.running = 1
        """Attempts under way."""
        self.over = False
        """Whether nothing is to be started any more."""

    def another(self, *, failover: bool = False) -> RaceEntry | None:
        """Add another attempt and return why it is made; None if none may be made."""
        if not self.may_grow or not (failover or self._budget.take()):
            return None
        self._hedges += 1
        self.running += 1
        return RaceEntry.FAILOVER if failover else RaceEntry.HEDGE

    def ended(self, verdict: HedgeVerdict | None, entry: RaceEntry) -> bool:
        """Count the end of an attempt (None: cancelled from outside, which ends the race); whether it has won.

        A RETRYABLE one leaves the race open, for the caller to ask for ``another`` and then to ``settle``.
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
        """End the race if no attempt is under way. To be called when no other was added."""
        if not self.running:
            self.over = True

    def stop(self) -> None:
        """End the race, whatever is under way: the call ends."""
        self.over = True

    @property
    def may_grow(self) -> bool:
        """Whether another hedge may still be made."""
        return not self.over and self._hedges < self._max
