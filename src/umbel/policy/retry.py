"""Retries: which results of an attempt are retried, and the pause before the next attempt.

Hedging uses the same table of retryable results.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from ..core.failure_kinds import KINDS, Kind

STATUSES = frozenset({502, 503, 504})
"""Statuses of temporary failures (RFC 9110 sections 15.6.3 to 15.6.5)."""

RETRY_AFTER_MAX = 30.0
"""Longest Retry-After in seconds that is waited for without a deadline."""

_KINDS = frozenset(kind for kind, rule in KINDS.items() if rule.retryable) - {Kind.STATUS}


class AttemptResult(NamedTuple):
    """Result of an attempt for the policies: a failure with its kind, or a response with its status."""

    kind: Kind | None
    """Kind of the failure; None for a response."""
    status: int | None = None
    untouched: bool = False
    """For the kind ``reset``: whether no byte of a response was received."""
    retry_after: float | None = None
    """Seconds of the field Retry-After, from the end of the attempt; None without it."""


@dataclass(frozen=True, slots=True)
class RetryOn:
    """The results of attempts that are retried; by default the retryable kinds of ``KINDS``, and STATUSES."""

    kinds: frozenset[Kind] = _KINDS
    """Kinds of failures. ``reset`` is retried only before the first byte of a response."""
    statuses: frozenset[int] = STATUSES

    @classmethod
    def of(cls, items: Iterable[Kind | str | int]) -> RetryOn:
        """Make the rules from a list such as ``["connect", "reset", 503]``; ``"status"`` means 502, 503 and 504.

        Raises:
            ValueError: an item is neither a retryable kind nor a status from 400 to 599; the message is one sentence.
        """
        kinds: set[Kind] = set()
        statuses: set[int] = set()
        for item in items:
            if isinstance(item, int) and 400 <= item <= 599:
                statuses.add(item)
            elif item == Kind.STATUS:
                statuses |= STATUSES
            elif item in _KINDS:
                kinds.add(Kind(item))
            else:
                names = ", ".join(sorted(_KINDS))
                raise ValueError(f"{item!r} cannot be retried: use {names}, status, or a number from 400 to 599")
        return cls(frozenset(kinds), frozenset(statuses))

    def covers(self, result: AttemptResult) -> bool:
        """Whether a result is retried."""
        if result.kind is None:
            return result.status in self.statuses
        return result.kind in self.kinds and (result.kind is not Kind.RESET or result.untouched)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Rules of retries: the number of attempts, and the exponential backoff between them.

    The pause before the n-th retry is random, up to ``min(max_backoff, backoff * 2 ** (n - 1))`` seconds ("full
    jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that calls that failed
    together are not repeated together.

    Raises:
        ValueError: a number is out of range.
    """

    attempts: int = 2
    """Number of attempts, including the first."""
    on: RetryOn = RetryOn()
    backoff: float = 0.025
    """Bound on the pause before the first retry, in seconds."""
    max_backoff: float = 0.25
    """Bound on every random pause, in seconds."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts includes the first attempt, so it must be at least 1, not {self.attempts}")
        if not (0 <= self.backoff < math.inf and 0 <= self.max_backoff < math.inf):
            raise ValueError("backoff and max_backoff must be finite and not negative")

    def wants(self, made: int, result: AttemptResult) -> bool:
        """Whether the rules retry a call after ``made`` attempts, of which the last had ``result``."""
        return made < self.attempts and self.on.covers(result)

    def pause(self, made: int, result: AttemptResult, now: float, deadline: float, rng: Random) -> float | None:
        """The pause before the next attempt in seconds. It is never shorter than Retry-After (RFC 9110 section 10.2.3).

        Args:
            made: number of attempts made.
            result: result of the last attempt.
            deadline: when the call must be over, on the clock of ``now``; ``math.inf``: no deadline.

        Returns:
            None if the pause would not end before ``deadline``, or, without a deadline, if Retry-After is over
            RETRY_AFTER_MAX.
        """
        # The exponent is bounded, because a large power is no float; ``max_backoff`` has applied long before.
        pause = rng.random() * min(self.max_backoff, self.backoff * 2.0 ** min(made - 1, 64))
        if result.retry_after is not None:
            if deadline == math.inf and result.retry_after > RETRY_AFTER_MAX:
                return None
            pause = max(pause, result.retry_after)
        return pause if now + pause < deadline else None
