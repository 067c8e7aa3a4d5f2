"""Failover: which repeated attempts replace those that a failing replica lost, and so add no load to the upstream.

``lost`` is called when an attempt has lost its connection before a byte of a response came. It has no clock: ``now`` is
handed in, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from .replicas.replica_load import ReplicaLoads
from .replicas.replica_state import ReplicaState

WINDOW_SECONDS = 10.0
"""Seconds in which a replica counts as dead at most once. Of one that fails more often the repeats are retries."""
FAILOVERS_MIN = 5
"""Failovers that an idle replica has too: as many as the failures that eject it (``ejection.EjectionRules``)."""


class FailoverPolicy:
    """Decides whether a repeat is failover or retry, for one set of replicas. Its counts are in each ``ReplicaState``.

    A retry budget keeps callers from asking an upstream in trouble for more than it was asked before. Where *one* of
    its replicas dies, all that is in flight there fails in the same moment: of two replicas half of all calls, far more
    than any budget. Sent once more to a replica that works, these attempts are not more than before. So they are
    granted apart from the budget, within bounds that hold however the upstream fails:

    - as many as were in flight at the replica when the first of them was lost, ``FAILOVERS_MIN`` at least, once in
      ``WINDOW_SECONDS``;
    - only while a replica is there to turn to whose last attempt did not fail. When all of them fail, every repeat is a
      retry again.
    """

    __slots__ = ("_loads", "granted")

    def __init__(self, loads: ReplicaLoads) -> None:
        self._loads = loads
        self.granted = 0
        """Since the beginning."""

    def lost(self, now: float, replica: ReplicaState, others: Iterable[ReplicaState]) -> bool:
        """Whether the repeat of an attempt at ``replica`` that lost its connection is failover.

        The load of ``replica`` counts the attempt no longer.

        Args:
            others: the replicas that the repeat may take.
        """
        if now >= replica.died_at + WINDOW_SECONDS:
            replica.died_at = now
            replica.failovers = max(FAILOVERS_MIN, replica.in_flight + 1)
        if not replica.failovers or all(self._loads.failing(now, other) for other in others):
            return False
        replica.failovers -= 1
        self.granted += 1
        return True
