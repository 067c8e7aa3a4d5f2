"""Retries: which results of an attempt are retried, and how long to wait before the next attempt.

Hedging uses the same table of retryable results. Nothing here waits, counts or draws random numbers of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from ..core.failure_kinds import KINDS, Kind

STATUSES = frozenset({502, 503, 504})
"""The statuses of temporary failures of a gateway's upstream."""

RETRY_AFTER_MAX = 30.0
"""Seconds that a Retry-After may ask for where no deadline bounds the wait."""

_KINDS = frozenset(kind for kind, rule in KINDS.items() if rule.retryable) - {Kind.STATUS}


class AttemptResult(NamedTuple):
    """Result of an attempt, as the policies see it: a failure's kind, or the status of a response."""

    kind: Kind | None
    status: int | None = None
    untouched: bool = False
    """Of kind ``reset``: not one byte of a response had come."""
    retry_after: float | None = None
    """Seconds from its end that the upstream wants to be left alone."""


@dataclass(frozen=True, slots=True)
class RetryOn:
    """The retryable results of attempts; by default those of the table of kinds."""

    kinds: frozenset[Kind] = _KINDS
    """``reset`` counts only before the first byte of a response: after it, the upstream has acted."""
    statuses: frozenset[int] = STATUSES

    @classmethod
    def of(cls, items: Iterable[Kind | str | int]) -> RetryOn:
        """From a list such as ``["connect", "reset", 503]``; ``"status"`` stands for 502, 503 and 504.

        Raises:
            ValueError: an item is no retryable kind and no status of an error; one sentence.
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
                raise ValueError(f"{item!r} cannot be retried on: name {names}, status, or a status from 400 to 599")
        return cls(frozenset(kinds), frozenset(statuses))

    def covers(self, result: AttemptResult) -> bool:
        """Whether this result is retryable."""
        if result.kind is None:
            return result.status in self.statuses
        return result.kind in self.kinds and (result.kind is not Kind.RESET or result.untouched)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Rules of retries: number of attempts and backoff between them. ``attempts`` counts the first: 2 is one retry.

    The n-th retry waits a random time up to ``min(max_backoff, backoff * 2 ** (n - 1))`` seconds ("full jitter":
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that calls that failed together do
    not come back together.
    """

    attempts: int = 2
    on: RetryOn = RetryOn()
    backoff: float = 0.025
    max_backoff: float = 0.25

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts counts the first one, so it is at least 1, not {self.attempts}")
        if not (0 <= self.backoff < math.inf and 0 <= self.max_backoff < math.inf):
            raise ValueError("backoff and max_backoff are seconds, finite and not negative")

    def wants(self, made: int, result: AttemptResult) -> bool:
        """Whether the call is retried after ``made`` attempts, the last with this result."""
        return made < self.attempts and self.on.covers(result)

    def pause(self, made: int, result: AttemptResult, now: float, deadline: float, rng: Random) -> float | None:
        """Backoff before the next attempt in seconds; None if the deadline comes before its end.

        It is never shorter than the upstream's Retry-After (RFC 9110 section 10.2.3).
        """
        # Far out the exponent alone would overflow, long after the cap has taken over.
        pause = rng.random() * min(self.max_backoff, self.backoff * 2.0 ** min(made - 1, 64))
        if result.retry_after is not None:
            if deadline == math.inf and result.retry_after > RETRY_AFTER_MAX:
                return None
            pause = max(pause, result.retry_after)
        return pause if now + pause < deadline else None
