"""Which repeats are failover: they replace what a dying replica took with it, and add no load to its upstream.

It is asked when an attempt has lost its connection before a byte of a response came. It has no clock: ``now`` is handed
in, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from .replicas.replica_load import Loads
from .replicas.replica_state import Member

WINDOW_SECONDS = 10.0
"""A replica dies at most once in so long: one that comes and goes is trouble, and its repeats are retries."""
FAILOVERS_MIN = 5
"""Of an idle replica too: as many failures as put it out (``ejection.EjectionRules``), whatever picks the replicas."""


class Failovers:
    """Tells failover from retry. One for a set of replicas; what it knows of each stands with its ``Member``.

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

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self.granted = 0
        """Since the beginning."""

    def lost(self, now: float, member: Member, others: Iterable[Member]) -> bool:
        """An attempt at ``member``, which counts it no longer, lost its connection. Whether its repeat is failover.

        Args:
            others: the replicas that the repeat may take.
        """
        if now >= member.died_at + WINDOW_SECONDS:
            member.died_at = now
            member.failovers = max(FAILOVERS_MIN, member.in_flight + 1)
        if not member.failovers or all(self._loads.failing(now, other) for other in others):
            return False
        member.failovers -= 1
        self.granted += 1
        return True
