"""Outlier ejection: replicas that fail again and again get no attempts for a while.

It has no clock: ``now`` is handed in, in seconds. The rules are Envoy's (its outlier detection, "consecutive 5xx" and
the ejection algorithm).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .replica_state import ReplicaState

FORGET_SECONDS = 10.0
"""Seconds in service after which one ejection of a replica is forgotten (Envoy's ``interval``)."""


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """Rules of ejection: after how many failures, and for how long."""

    failures: int = 5
    """Failures in a row that eject a replica."""
    base: float = 30.0
    """Seconds of its first ejection; the second lasts twice as long, and so on."""
    maximum: float = 300.0
    """Seconds of the longest."""
    share: float = 0.5
    """The part of the replicas (0 to 1) that may be ejected at once; the last one never is."""

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.base <= self.maximum or not 0 <= self.share <= 1:
            raise ValueError("ejection needs a failure at least, a base up to its maximum, and a share from 0 to 1")


class Ejection:
    """The ejections of a set of replicas. Those of a replica that leaves the set go with it.

    Args:
        changed: called with each replica that is ejected (True), and with each that is back (False); it must not raise.
            The end of the ejection is the replica's ``back_at``.
    """

    __slots__ = ("_changed", "_out", "_replicas", "_room", "_rules", "ejected")

    def __init__(
        self, rules: EjectionRules | None = None, changed: Callable[[ReplicaState, bool], None] | None = None
    ) -> None:
        self._rules = rules or EjectionRules()
        self._changed = changed
        self._replicas: frozenset[ReplicaState] = frozenset()
        self._room = 0
        self._out: dict[str, ReplicaState] = {}
        self.ejected = 0
        """Ejections since the beginning."""

    def follow(self, now: float, replicas: Collection[ReplicaState]) -> None:
        """Take ``replicas`` for the set from now on. If more are out than may be, the next to return return at once."""
        count = len(replicas)
        self._replicas = frozenset(replicas)
        # The smallest amount keeps 0.7 * 10 from being less than 7.
        self._room = max(0, min(int(count * self._rules.share + 1e-9), count - 1))
        out = sorted((replica for replica in replicas if replica.back_at > now), key=lambda replica: replica.back_at)
        excess = max(0, len(out) - self._room)
        for replica in out[:excess]:
            replica.back_at = now
            self._report(replica, False)
        self._out = {replica.name: replica for replica in out[excess:]}

    def out(self, now: float) -> Collection[str]:
        """The names of the replicas that are ejected."""
        if not self._out:
            return ()
        for name in [name for name, replica in self._out.items() if replica.back_at <= now]:
            self._report(self._out.pop(name), False)
        return self._out.keys()

    def left(self, now: float, replica: ReplicaState) -> float:
        """Seconds until ``replica`` is back; 0 if it is not ejected."""
        return max(0.0, replica.back_at - now)

    def ended(self, now: float, replica: ReplicaState, has_failed: bool) -> None:
        """Count the end of an attempt. Not for one that was cut or that says nothing of its replica."""
        if not has_failed:
            replica.streak = 0
            return
        out = self.out(now)
        if replica.name in out or replica not in self._replicas:
            return  # It began before the replica was ejected or had left, or it was the last resort.
        replica.streak += 1
        # Without room it goes on counting, so that the next failure after another is back ejects it.
        if replica.streak >= self._rules.failures and len(out) < self._room:
            self._eject(now, replica)

    def _eject(self, now: float, replica: ReplicaState) -> None:
        if replica.ejections:
            forgotten = int((now - replica.back_at) / FORGET_SECONDS)
            replica.ejections = max(0, replica.ejections - forgotten)
        replica.ejections += 1
        replica.back_at = now + min(self._rules.base * replica.ejections, self._rules.maximum)
        replica.streak = 0
        self._out[replica.name] = replica
        self.ejected += 1
        self._report(replica, True)

    def _report(self, replica: ReplicaState, is_out: bool) -> None:
        if self._changed is not None:
            self._changed(replica, is_out)
