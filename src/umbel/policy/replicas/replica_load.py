"""Load of a replica: attempts in flight, and for a time its failures and the attempts that hedges overtook."""

from __future__ import annotations

import math
from collections.abc import Collection
from heapq import heappop, heappush

from .replica_state import ReplicaState

USUAL_SECONDS = 0.1
"""Usual response time in seconds before any replica has answered."""
FAILURE_SECONDS_MIN = 0.1
"""Shortest time in seconds for which a failure counts. With the response time of a fast replica, a millisecond, five
failures would follow so quickly that their retries would exceed the minimum of the retry budget before the ejection."""
WEIGHT = 0.1
"""Weight of the newest response time in a replica's moving average."""
OVERTAKEN_SECONDS_MAX = 5.0
"""Longest time in seconds for which an overtaken attempt counts, so that a slow replica is tried again after it."""
LINGERING_ENDS_MAX = 1000
"""Bound on the ended attempts of a replica that still count."""


class ReplicaLoads:
    """The loads of a set of replicas: for each, its attempts in flight and the ended attempts that still count.

    **Failures.** A replica that fails at once would seem idle and attract all traffic. So a failure counts as an
    attempt in flight for as long as a response of the replica usually takes, at least FAILURE_SECONDS_MIN. During this
    time the replica is also ``failing``, until it answers. So a dead replica gets an attempt only now and then, and a
    replica with rare failures still gets traffic.

    **Overtaken attempts.** A slow replica has many attempts in flight and therefore gets few. But if its attempts are
    hedged, each is cut when the hedge has a response, and the slow replica would seem as fast as the others. So an
    overtaken attempt still counts for as long as it had lasted, and twice as long with each further one in a row, up to
    OVERTAKEN_SECONDS_MAX.
    """

    __slots__ = ("_replicas",)

    def __init__(self, replicas: Collection[ReplicaState] = ()) -> None:
        self._replicas = replicas

    def follow(self, replicas: Collection[ReplicaState]) -> None:
        """Adopt ``replicas`` as the set."""
        self._replicas = replicas

    def ended(self, now: float, replica: ReplicaState, seconds: float, has_failed: bool | None) -> None:
        """Count the end of an attempt that lasted ``seconds``. Its beginning has added 1 to ``in_flight``.

        Args:
            has_failed: result of ``failure_verdict.failed``. None: only the number of attempts in flight changes.
        """
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
        """Count an ended attempt as overtaken: it was cut after ``seconds``, because a hedge on another replica won.

        ``ended`` must be called for the attempt as well. An attempt that began before the previous one was overtaken
        does not lengthen the row: both show the same slow moment.
        """
        began_at = now - seconds
        if began_at >= replica.overtaken_at or not replica.overtaken:
            replica.overtaken += 1
            replica.overtaken_at = now
            replica.overtaken_age = seconds
        # The exponent is bounded, because a large power is no float; OVERTAKEN_SECONDS_MAX has applied long before.
        self._linger(replica, now + min(seconds * 2.0 ** min(replica.overtaken - 1, 64), OVERTAKEN_SECONDS_MAX))

    def failing(self, now: float, replica: ReplicaState) -> bool:
        """Whether the last attempt of ``replica`` with a verdict failed, and this failure still counts."""
        return now < replica.failing_until

    def of(self, now: float, replica: ReplicaState) -> int:
        """The load of ``replica``: the number of attempts in flight, and of ended attempts that still count."""
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
