"""How busy each replica is: its attempts in flight, and for a while its failures and what was too slow for a hedge.

For the power of two choices. No clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from heapq import heappop, heappush

from .replica_state import Member

USUAL_SECONDS = 0.1
"""What is taken for the usual time of an answer before any replica has given one."""
FAILURE_SECONDS_MIN = 0.1
"""How long a failure counts at least. A millisecond would be over before the next call: then the five failures that
eject a fast replica come so quickly that their retries are more than a retry budget's three at once."""
WEIGHT = 0.1
"""How much of a replica's usual time is its newest answer's."""
OVERTAKEN_SECONDS_MAX = 5.0
"""How long an attempt that was overtaken counts at most: so often at least a slow replica shows whether it still is."""
GHOSTS_MAX = 1000
"""The ends of a replica's attempts that count on at once."""


class Loads:
    """The loads of a set of replicas. What ends on one that has left the set is counted there, and harms nobody.

    A replica that fails at once would look idle and draw all traffic to itself. So a failure counts as one more attempt
    in flight for as long as an answer of that replica usually takes, and for a tenth of a second at least. For that
    time it is ``failing`` as well, unless an answer of it comes before: one that died is then asked by one call in a
    while, and one that fails now and then is not left out.

    A slow replica has much in flight and so gets little; but if its attempts are hedged, each is cut as soon as the
    hedge answers, and the replica would look as quick as those that help it out. So an attempt that was ``overtaken``
    counts on, for its age, and for twice as long with each time in a row that the next one is overtaken too.
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
        if has_failed:
            until = now + max(self.usual(member), FAILURE_SECONDS_MIN)
            member.failing_until = max(member.failing_until, until)
            self._haunt(member, until)
            return
        member.failing_until = -math.inf
        if seconds < member.overtaken_age:
            member.overtaken = 0
        usual = member.usual
        member.usual = seconds if usual is None else usual + WEIGHT * (seconds - usual)

    def overtaken(self, now: float, member: Member, seconds: float) -> None:
        """An attempt was cut at that age because one that began later, elsewhere, had its answer. It has ``ended`` too.

        What began before the last of them was overtaken says the same as that one did, not more.
        """
        began_at = now - seconds
        if began_at >= member.overtaken_at or not member.overtaken:
            member.overtaken += 1
            member.overtaken_at = now
            member.overtaken_age = seconds
        # Far out the power would be no float, long after the bound has taken over.
        self._haunt(member, now + min(seconds * 2.0 ** min(member.overtaken - 1, 64), OVERTAKEN_SECONDS_MAX))

    def failing(self, now: float, member: Member) -> bool:
        """Whether its last end was a failure that still counts."""
        return now < member.failing_until

    def of(self, now: float, member: Member) -> int:
        """Its load: attempts in flight, and ends that still count."""
        ghosts = member.ghosts
        if not ghosts:
            return member.in_flight
        while ghosts and ghosts[0] <= now:
            heappop(ghosts)
        return member.in_flight + len(ghosts)

    def _haunt(self, member: Member, until: float) -> None:
        if len(member.ghosts) < GHOSTS_MAX:
            heappush(member.ghosts, until)

    def usual(self, member: Member) -> float:
        """Seconds that an answer of it usually takes: a moving average; before its first, the slowest replica's."""
        if member.usual is not None:
            return member.usual
        return max((each.usual for each in self._members if each.usual is not None), default=USUAL_SECONDS)
