"""How busy each replica is: its attempts in flight, and for a while its failures.

Told by ``upstream/balance.py``, asked by the power of two choices. No clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heappop, heappush

from .member import Member

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
    """The loads of a set of replicas. What ends on one that has left the set is counted there, and harms nobody.

    A replica that fails at once would look idle and draw all traffic to itself. So a failure counts as one more attempt
    in flight for as long as an answer of that replica usually takes, and for a tenth of a second at least. For that
    time it is ``failing`` as well, unless an answer of it comes before: one that died is then asked by one call in a
    while, and one that fails now and then is not left out.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Collection[Member] = ()) -> None:
        self._members = members

    def follow(self, members: Collection[Member]) -> None:
        """The set is this one from now on."""
        self._members = members

    def begun(self, member: Member) -> None:
        """An attempt has begun."""
        member.in_flight += 1

    def ended(self, now: float, member: Member, seconds: float, has_failed: bool | None) -> None:
        """An attempt has ended, which took so long; None: it says nothing of its replica (it was cut, say)."""
        member.in_flight -= 1
        if has_failed is None:
            return
        member.failed_last = has_failed
        if has_failed:
            if len(member.failures) < FAILURES_MAX:
                heappush(member.failures, now + max(self.usual(member), FAILURE_SECONDS_MIN))
            return
        usual = member.usual
        member.usual = seconds if usual is None else usual + WEIGHT * (seconds - usual)

    def failing(self, now: float, member: Member) -> bool:
        """Whether its last end was a failure that still counts."""
        return member.failed_last and self.of(now, member) > member.in_flight

    def of(self, now: float, member: Member) -> int:
        """Its load: attempts in flight, and failures that still count."""
        failures = member.failures
        if not failures:
            return member.in_flight
        while failures and failures[0] <= now:
            heappop(failures)
        return member.in_flight + len(failures)

    def usual(self, member: Member) -> float:
        """Seconds that an answer of it usually takes: a moving average; before its first, the slowest replica's."""
        if member.usual is not None:
            return member.usual
        return max((each.usual for each in self._members if each.usual is not None), default=USUAL_SECONDS)
