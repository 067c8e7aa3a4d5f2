"""How busy each replica is: its attempts in flight, and for a while its failures.

Told by ``upstream/balance.py``, asked by the power of two choices. No clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

from heapq import heappop, heappush

USUAL_SECONDS = 0.1
"""What is taken for the usual time of an answer before any replica has given one."""
FAILURE_SECONDS_MIN = 0.1
"""How long a failure counts at least. A millisecond would be over before the next call: then the five failures that
eject a fast replica come so quickly that their retries are more than a retry budget's three at once."""
WEIGHT = 0.1
"""How much of a replica's usual time is its newest answer's."""
FAILURES_MAX = 1000
"""The failures of a replica that are remembered at once."""


class Loads:
    """The loads of ``count`` replicas, which are known by their places.

    A replica that fails at once would look idle and draw all traffic to itself. So a failure counts as one more attempt
    in flight for as long as an answer of that replica usually takes, and for a tenth of a second at least. For that
    time it is ``failing`` as well, unless an answer of it comes before: one that died is then asked by one call in a
    while, and one that fails now and then is not left out.
    """

    __slots__ = ("_failed_last", "_failures", "_usual", "in_flight")

    def __init__(self, count: int) -> None:
        self.in_flight = [0] * count
        self._usual: list[float | None] = [None] * count
        # Of each failure, when it stops counting; the next to stop comes first.
        self._failures: list[list[float]] = [[] for _ in range(count)]
        self._failed_last = [False] * count

    def begun(self, place: int) -> None:
        """An attempt has begun."""
        self.in_flight[place] += 1

    def ended(self, now: float, place: int, seconds: float, has_failed: bool | None) -> None:
        """An attempt has ended, which took so long; None: it says nothing of its replica (it was cut, say)."""
        self.in_flight[place] -= 1
        if has_failed is None:
            return
        self._failed_last[place] = has_failed
        if has_failed:
            failures = self._failures[place]
            if len(failures) < FAILURES_MAX:
                heappush(failures, now + max(self.usual(place), FAILURE_SECONDS_MIN))
            return
        usual = self._usual[place]
        self._usual[place] = seconds if usual is None else usual + WEIGHT * (seconds - usual)

    def failing(self, now: float, place: int) -> bool:
        """Whether its last end was a failure that still counts."""
        return self._failed_last[place] and self.of(now, place) > self.in_flight[place]

    def of(self, now: float, place: int) -> int:
        """Its load: attempts in flight, and failures that still count."""
        failures = self._failures[place]
        if not failures:
            return self.in_flight[place]
        while failures and failures[0] <= now:
            heappop(failures)
        return self.in_flight[place] + len(failures)

    def usual(self, place: int) -> float:
        """Seconds that an answer of it usually takes: a moving average; before its first, the slowest replica's."""
        usual = self._usual[place]
        if usual is not None:
            return usual
        return max((known for known in self._usual if known is not None), default=USUAL_SECONDS)
