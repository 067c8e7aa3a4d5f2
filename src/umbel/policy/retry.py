"""Whether a failed attempt is worth another, and how long to wait before it.

The hedge policy asks it too what is worth another attempt. Nothing here waits, counts or draws a random number of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from ..core.failure_kinds import KINDS, Kind

STATUSES = frozenset({502, 503, 504})
"""The statuses that a gateway's upstream means to pass: it was not there, or not able, for the moment."""

RETRY_AFTER_MAX = 30.0
"""Seconds that a Retry-After may ask for where no deadline bounds the wait."""

_KINDS = frozenset(kind for kind, rule in KINDS.items() if rule.retryable) - {Kind.STATUS}


class Ending(NamedTuple):
    """How an attempt ended: with a failure's kind, or with a response of a status."""

    kind: Kind | None
    status: int | None = None
    untouched: bool = False
    """Of kind ``reset``: not one byte of a response had come."""
    retry_after: float | None = None
    """Seconds from its end that the upstream wants to be left alone."""


@dataclass(frozen=True, slots=True)
class RetryOn:
    """The endings that are worth another attempt. By default what the table of kinds says."""

    kinds: frozenset[Kind] = _KINDS
    """``reset`` counts only before the first byte, whoever names it: after it, the upstream has acted."""
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

    def covers(self, ending: Ending) -> bool:
        """Whether the attempt that ended so is worth another."""
        if ending.kind is None:
            return ending.status in self.statuses
        return ending.kind in self.kinds and (ending.kind is not Kind.RESET or ending.untouched)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often a call is attempted and what is between. ``attempts`` counts the first: 2 means one retry.

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

    def wants(self, made: int, ending: Ending) -> bool:
        """Whether the call is to be attempted again, after ``made`` attempts of which the last ended so."""
        return made < self.attempts and self.on.covers(ending)

    def pause(self, made: int, ending: Ending, now: float, deadline: float, rng: Random) -> float | None:
        """Seconds to wait before the next attempt; None if there is no time for that: then the ending stands.

        It is never shorter than the upstream's Retry-After (RFC 9110 section 10.2.3).
        """
        # Far out the exponent alone would overflow, long after the cap has taken over.
        pause = rng.random() * min(self.max_backoff, self.backoff * 2.0 ** min(made - 1, 64))
        if ending.retry_after is not None:
            if deadline == math.inf and ending.retry_after > RETRY_AFTER_MAX:
                return None
            pause = max(pause, ending.retry_after)
        return pause if now + pause < deadline else None
