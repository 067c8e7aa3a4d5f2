"""Outlier ejection: a replica that fails several times in a row gets no attempts for a time.

The rules are those of Envoy's outlier detection ("consecutive 5xx" and the ejection algorithm).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .replica_state import ReplicaState

FORGET_SECONDS = 10.0
"""Seconds without an ejection after which one earlier ejection of the replica is forgotten (Envoy's ``interval``)."""


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """Rules of outlier ejection.

    Raises:
        ValueError: a number is out of range.
    """

    failures: int = 5
    """Number of failures in a row that eject a replica."""
    base: float = 30.0
    """Seconds of a replica's first ejection; the n-th ejection lasts n times as long."""
    maximum: float = 300.0
    """Longest ejection in seconds."""
    share: float = 0.5
    """Share of the replicas, 0 to 1, that may be ejected at once, rounded down. The last replica is never ejected."""

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.base <= self.maximum or not 0 <= self.share <= 1:
            raise ValueError(
                "ejection needs failures of at least 1, a base above 0 and up to the maximum, and a share from 0 to 1"
            )


class Ejection:
    """The outlier ejections of a set of replicas. If a replica leaves the set, its ejection ends and is not reported.

    Args:
        rules: None: the default rules.
        changed: called with a replica and True when it is ejected, and with False when its ejection is over; must not
            raise. ``ReplicaState.back_at`` is the end of the ejection.
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
        """Number of ejections since the object was created."""

    def follow(self, now: float, replicas: Collection[ReplicaState]) -> None:
        """Adopt ``replicas`` as the set. If more are ejected than ``share`` permits, those that end first end now."""
        count = len(replicas)
        self._replicas = frozenset(replicas)
        # The addend corrects products such as 0.7 * 10, which floating point may give as slightly less than 7.
        self._room = max(0, min(int(count * self._rules.share + 1e-9), count - 1))
        out = sorted((replica for replica in replicas if replica.back_at > now), key=lambda replica: replica.back_at)
        excess = max(0, len(out) - self._room)
        for replica in out[:excess]:
            replica.back_at = now
            self._report(replica, False)
        self._out = {replica.name: replica for replica in out[excess:]}

    def out(self, now: float) -> Collection[str]:
        """Names of the ejected replicas. Reports the ejections that are over by ``now``."""
        if not self._out:
            return ()
        for name in [name for name, replica in self._out.items() if replica.back_at <= now]:
            self._report(self._out.pop(name), False)
        return self._out.keys()

    def left(self, now: float, replica: ReplicaState) -> float:
        """Seconds until the end of the ejection of ``replica``; 0 if it is not ejected."""
        return max(0.0, replica.back_at - now)

    def ended(self, now: float, replica: ReplicaState, has_failed: bool) -> None:
        """Count the end of an attempt with a verdict (``failure_verdict.failed``); eject the replica if due."""
        if not has_failed:
            replica.streak = 0
            return
        out = self.out(now)
        if replica.name in out or replica not in self._replicas:
            return  # The attempt began before the ejection or the change of the set, or no other replica was left.
        replica.streak += 1
        # If ``share`` does not permit the ejection, the count goes on: the next failure may eject the replica.
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
