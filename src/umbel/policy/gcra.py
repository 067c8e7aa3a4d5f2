"""GCRA: a rate limit with a burst, whose state is one number (ITU-T I.371, virtual scheduling algorithm).

The *theoretical arrival time* (TAT) of a key is the time at which all that the key has spent is paid for, at the
increment ``1 / rate`` for each unit of cost. A request conforms if its cost moves the TAT at most ``burst`` increments
beyond the present. So within any ``t`` seconds at most ``burst + rate * t`` units are admitted.

Times are seconds of one clock that does not go back. A float of such a clock resolves about 1e-10 s, so the rate is
exact to that fraction of an increment.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Key = str | bytes | None
"""For whom a limit counts. A text is ASCII."""
NEVER = -math.inf
"""The TAT of a key that has spent nothing."""

# Sums of increments have rounding errors: without a slack, a burst of three increments of 0.1 s would admit only two.
# The TAT itself is not rounded, so the slack does not add up.
_SLACK = 1e-3


class Decision(NamedTuple):
    """What a limit has decided about one request."""

    admitted: bool
    tat: float
    """The TAT from now on; unchanged if the request is refused or costs nothing."""
    remaining: float
    """The units that could be spent at once now; 0 or more."""
    retry_after: float
    """Seconds until the same cost would be admitted, if nothing else is spent; 0: now; infinite: it exceeds the burst,
    so it is never admitted."""
    reset: float
    """Seconds until the whole burst is available, if nothing else is spent."""


class Gcra:
    """A rate limit; the caller keeps the TAT of each key.

    Args:
        rate: units per second, in the long run.
        burst: units that may be spent at once.

    Raises:
        ValueError: the rate is not a positive finite number, or the burst is less than 1 or infinite.
    """

    __slots__ = ("_allowance", "_limit", "burst", "increment", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        if not 0 < rate < math.inf:
            raise ValueError(f"the rate of a limit must be more than 0 and finite, not {rate}")
        if not 1 <= burst < math.inf:
            raise ValueError(f"the burst of a limit must be 1 or more and finite, not {burst}")
        self.rate = rate
        self.burst = burst
        self.increment = 1 / rate
        """Seconds by which one unit moves the TAT."""
        self._allowance = burst * self.increment
        self._limit = (burst + _SLACK) * self.increment

    def decide(self, tat: float, now: float, cost: float = 1.0) -> Decision:
        """Decide about a request that costs ``cost`` units, by the TAT of its key.

        A request without a cost is admitted always, and one that costs more than the burst never.

        Raises:
            ValueError: ``cost`` is negative or not a number.
        """
        start = tat if tat > now else now
        if cost == 0:
            return Decision(True, tat, self._remaining(start - now), 0.0, start - now)
        if not cost > 0:
            raise ValueError(f"the cost of a request must be 0 or more, not {cost}")
        backlog = start + cost * self.increment - now
        if backlog <= self._limit:
            return Decision(True, now + backlog, self._remaining(backlog), 0.0, backlog)
        retry_after = math.inf if cost > self.burst else backlog - self._allowance
        return Decision(False, tat, self._remaining(start - now), retry_after, start - now)

    def wait(self, tat: float, now: float, cost: float, ahead: float = 0.0) -> float:
        """Seconds until ``cost`` conforms, if before it ``ahead`` units are spent, each as early as it conforms.

        0: it conforms now. Infinite: it exceeds the burst, so it never conforms. What else is spent in the meantime
        makes the wait longer, and what is not spent of ``ahead`` makes it shorter.
        """
        if cost * self.increment > self._limit:
            return math.inf
        start = tat if tat > now else now
        backlog = start + (ahead + cost) * self.increment - now
        return 0.0 if backlog <= self._limit else backlog - self._allowance

    def _remaining(self, backlog: float) -> float:
        left = (self._allowance - backlog) * self.rate
        return left if left > 0 else 0.0
