"""When a call gets a second attempt beside its first, and which of them counts.

Knows neither how attempts are made nor how they are cancelled.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

from .retry import Ending, RetryOn
from .retry_budget import Budget

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")
_RETRYABLE = RetryOn()


@dataclass(frozen=True, slots=True)
class HedgeRules:
    """When to hedge a call, and how often.

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


class Judgement(enum.Enum):
    """What an ending is worth in a race."""

    SUCCESS = "an answer: it wins, whatever else is under way"
    RETRYABLE = "a failure that another attempt may mend"
    FAILURE = "a failure that another attempt would meet again, but that no attempt under way must yield to"


def judge(ending: Ending) -> Judgement:
    """An answer below 500 is one: what it is worth, its caller knows. The rest is as the table of kinds has it.

    But for a Retry-After: the upstream asks to be left alone. A retry can wait as long as that, a hedge is for now.
    """
    if ending.kind is None and ending.status is not None and ending.status < 500:
        return Judgement.SUCCESS
    return Judgement.RETRYABLE if _RETRYABLE.covers(ending) and not ending.retry_after else Judgement.FAILURE


class Entry(enum.Enum):
    """Why an attempt is in a race."""

    FIRST = "with it the race began"
    HEDGE = "it was started beside the others, or for one that failed, and the budget granted it"
    FAILOVER = "it replaces one that a dying replica took with it, which needs no budget (policy/failover.py)"


class Race:
    """The attempts of one call beside each other. It begins with the first attempt under way.

    ========== =================== ==========================================================
    it is      an attempt ends as  and then
    ========== =================== ==========================================================
    on         SUCCESS             it is over: that one has won, the others have lost
    on         RETRYABLE           another may start at once (``another``), no matter the time
    on         any failure         it is over if none is under way any more
    over       anything            nothing: it came too late
    ========== =================== ==========================================================

    If all have failed, the first attempt's failure stands. A hedge so turns a failure into a success, but never one
    failure into another: without a success, hedged and unhedged calls answer alike.
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

    def another(self, *, failover: bool = False) -> Entry | None:
        """What another attempt that starts now is; None: there is to be none. It is under way then."""
        if not self.may_grow or not (failover or self._budget.take()):
            return None
        self._hedges += 1
        self.running += 1
        return Entry.FAILOVER if failover else Entry.HEDGE

    def ended(self, judgement: Judgement | None, entry: Entry) -> bool:
        """An attempt has ended (None: cancelled from outside, which ends the race). Whether it has won.

        A RETRYABLE one leaves the race open, for the caller to ask for ``another`` and then to ``settle``.
        """
        self.running -= 1
        if entry is Entry.HEDGE:
            self._budget.give_back()
        if judgement is Judgement.SUCCESS and not self.over:
            self.over = True
            return True
        if judgement is None or (judgement is Judgement.FAILURE and not self.running):
            self.over = True
        return False

    def settle(self) -> None:
        """Nothing more was started: with nothing under way the race is over."""
        if not self.running:
            self.over = True

    def stop(self) -> None:
        """The call ends, whatever is under way: nothing more is started."""
        self.over = True

    @property
    def may_grow(self) -> bool:
        """Whether more hedges are allowed at all."""
        return not self.over and self._hedges < self._max
