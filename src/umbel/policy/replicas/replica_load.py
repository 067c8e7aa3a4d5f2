"""Load of each replica: its attempts in flight, and for a while its failures and the attempts that hedges overtook.

The power of two choices compares it. It has no clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from heapq import heappop, heappush

from .replica_state import ReplicaState

USUAL_SECONDS = 0.1
"""The usual response time before any replica has answered."""
FAILURE_SECONDS_MIN = 0.1
"""How long a failure counts at least. A millisecond would be over before the next call: then the five failures that
eject a fast replica come so quickly that their retries are more than a retry budget's three at once."""
WEIGHT = 0.1
"""Weight of the newest response time in a replica's moving average."""
OVERTAKEN_SECONDS_MAX = 5.0
"""How long an attempt that was overtaken counts at most: so often at least a slow replica shows whether it still is."""
LINGERING_ENDS_MAX = 1000
"""Ended attempts of one replica that still count at once."""


class ReplicaLoads:
    """The loads of a set of replicas. An attempt that ends on one that has left the set has no effect on the others.

    A replica that fails at once would look idle and draw all traffic to itself. So a failure counts as one more attempt
    in flight for as long as an answer of that replica usually takes, and for a tenth of a second at least. For that
    time it is ``failing`` as well, unless an answer of it comes before: one that died is then asked by one call in a
    while, and one that fails now and then is not left out.

    A slow replica has much in flight and so gets little; but if its attempts are hedged, each is cut as soon as the
    hedge answers, and the replica would look as quick as those that help it out. So an attempt that was ``overtaken``
    counts on, for its age, and for twice as long with each time in a row that the next one is overtaken too.
    """

    __slots__ = ("_replicas",)

    def __init__(self, replicas: Collection[ReplicaState] = ()) -> None:
        self._replicas = replicas

    def follow(self, replicas: Collection[ReplicaState]) -> None:
        """Take ``replicas`` for the set from now on."""
        self._replicas = replicas

    def begun(self, replica: ReplicaState) -> None:
        """Count an attempt that begins."""
        replica.in_flight += 1

    def ended(self, now: float, replica: ReplicaState, seconds: float, has_failed: bool | None) -> None:
        """Count the end of an attempt of ``seconds``; None: it says nothing of its replica (it was cut, say)."""
        replica.in_flight -= 1
        if has_failed is None:
            return
        if has_failed:
            until = now + max(self.usual(replica), FAILURE_SECONDS_MIN)
            replica.failing_until = max(replica.failing_until, until)
            self._linger(replica, until)
            return
        replica.failing_until = -math.inf
        if seconds < replica.overtaken_age:
            replica.overtaken = 0
        usual = replica.usual
        replica.usual = seconds if usual is None else usual + WEIGHT * (seconds - usual)

    def overtaken(self, now: float, replica: ReplicaState, seconds: float) -> None:
        """An attempt was cut at that age because one that began later, elsewhere, had its answer. It has ``ended`` too.

        What began before the last of them was overtaken says the same as that one did, not more.
        """
        began_at = now - seconds
        if began_at >= replica.overtaken_at or not replica.overtaken:
            replica.overtaken += 1
            replica.overtaken_at = now
            replica.overtaken_age = seconds
        # Far out the power would be no float, long after the bound has taken over.
        self._linger(replica, now + min(seconds * 2.0 ** min(replica.overtaken - 1, 64), OVERTAKEN_SECONDS_MAX))

    def failing(self, now: float, replica: ReplicaState) -> bool:
        """Whether the last end of an attempt of ``replica`` was a failure that still counts."""
        return now < replica.failing_until

    def of(self, now: float, replica: ReplicaState) -> int:
        """The load of ``replica``: attempts in flight, and ended ones that still count."""
        lingering_ends = replica.lingering_ends
        if not lingering_ends:
            return replica.in_flight
        while lingering_ends and lingering_ends[0] <= now:
            heappop(lingering_ends)
        return replica.in_flight + len(lingering_ends)

    def _linger(self, replica: ReplicaState, until: float) -> None:
        if len(replica.lingering_ends) < LINGERING_ENDS_MAX:
            heappush(replica.lingering_ends, until)

    def usual(self, replica: ReplicaState) -> float:
        """The usual response time in seconds: a moving average; before the first response, the slowest replica's."""
        if replica.usual is not None:
            return replica.usual
        return max((each.usual for each in self._replicas if each.usual is not None), default=USUAL_SECONDS)
