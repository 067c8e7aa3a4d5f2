"""Failover: repeated attempts that need no retry budget, because they replace attempts that a dying replica lost."""

from __future__ import annotations

from collections.abc import Iterable

from .replicas.replica_load import ReplicaLoads
from .replicas.replica_state import ReplicaState

WINDOW_SECONDS = 10.0
"""Seconds for which the number of failovers of one replica is fixed. Repetitions beyond it are retries."""
FAILOVERS_MIN = 5
"""Smallest such number: as many as the failures in a row that eject a replica (``EjectionRules``)."""


class FailoverPolicy:
    """Decides whether the repetition of a lost attempt is failover or a retry, for one set of replicas.

    A retry budget bounds the load that repetitions add to a failing upstream. When *one* replica dies, all its attempts
    in flight fail at the same moment; with two replicas these are half of all calls, far more than the budget. Repeated
    on a replica that works, they are no additional load. So they are granted without the budget, within these bounds:

    - in ``WINDOW_SECONDS``, at most as many as were in flight at the replica when the first was lost, or
      ``FAILOVERS_MIN`` if that is more;
    - only if another replica is not failing (``ReplicaLoads.failing``). If all replicas fail, every repetition is a
      retry.

    The counts are in each ``ReplicaState``.
    """

    __slots__ = ("_loads", "granted")

    def __init__(self, loads: ReplicaLoads) -> None:
        self._loads = loads
        self.granted = 0
        """Number of failovers granted since the object was created."""

    def lost(self, now: float, replica: ReplicaState, others: Iterable[ReplicaState]) -> bool:
        """Count an attempt at ``replica`` whose connection failed before the first byte of a response.

        ``ReplicaLoads.ended`` must have been called for the attempt before.

        Args:
            others: the replicas that the repetition may take.

        Returns:
            whether the repetition is failover; False: it is a retry.
        """
        if now >= replica.died_at + WINDOW_SECONDS:
            replica.died_at = now
            replica.failovers = max(FAILOVERS_MIN, replica.in_flight + 1)
        if not replica.failovers or all(self._loads.failing(now, other) for other in others):
            return False
        replica.failovers -= 1
        self.granted += 1
        return True
