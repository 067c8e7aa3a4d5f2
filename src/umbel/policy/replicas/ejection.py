"""Which replicas are left out for a while because they fail again and again: outlier ejection.

Told what came of each attempt, and asked by it who is out. No clock: ``now`` is handed in, in seconds. The rules are
Envoy's (its outlier detection, "consecutive 5xx" and the ejection algorithm).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .replica_state import Member

FORGET_SECONDS = 10.0
"""In service for so long, a replica has one of its ejections forgotten (Envoy's ``interval``)."""


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When a replica is out, and for how long."""

    failures: int = 5
    """Failures in a row that put it out."""
    base: float = 30.0
    """Seconds of its first ejection; the second lasts twice as long, and so on."""
    maximum: float = 300.0
    """Seconds of the longest."""
    share: float = 0.5
    """The part of the replicas (0 to 1) that may be out at once; the last one never is."""

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.base <= self.maximum or not 0 <= self.share <= 1:
            raise ValueError("ejection needs a failure at least, a base up to its maximum, and a share from 0 to 1")


class Ejection:
    """The ejections among a set of replicas. One that leaves the set takes them with it.

    Args:
        changed: told of each replica that goes out, and of each that is found to be back; it must not raise. How long
            it is out stands in its ``back_at``.
    """

    __slots__ = ("_changed", "_members", "_out", "_room", "_rules", "ejected")

    def __init__(
        self, rules: EjectionRules | None = None, changed: Callable[[Member, bool], None] | None = None
    ) -> None:
        self._rules = rules or EjectionRules()
        self._changed = changed
        self._members: frozenset[Member] = frozenset()
        self._room = 0
        self._out: dict[str, Member] = {}
        self.ejected = 0
        """Ejections since the beginning."""

    def follow(self, now: float, members: Collection[Member]) -> None:
        """The set is this one from now on. If more are out than may be of it, the next to be back are so at once."""
        count = len(members)
        self._members = frozenset(members)
        # The smallest amount keeps 0.7 * 10 from being less than 7.
        self._room = max(0, min(int(count * self._rules.share + 1e-9), count - 1))
        out = sorted((member for member in members if member.back_at > now), key=lambda member: member.back_at)
        excess = max(0, len(out) - self._room)
        for member in out[:excess]:
            member.back_at = now
            self._tell(member, False)
        self._out = {member.name: member for member in out[excess:]}

    def out(self, now: float) -> Collection[str]:
        """The names of those that are out."""
        if not self._out:
            return ()
        for name in [name for name, member in self._out.items() if member.back_at <= now]:
            self._tell(self._out.pop(name), False)
        return self._out.keys()

    def left(self, now: float, member: Member) -> float:
        """Seconds until it is back; 0 if it is not out."""
        return max(0.0, member.back_at - now)

    def ended(self, now: float, member: Member, has_failed: bool) -> None:
        """An attempt has ended. One that was cut, or says nothing of its replica, is not told."""
        if not has_failed:
            member.streak = 0
            return
        out = self.out(now)
        if member.name in out or member not in self._members:
            return  # It began before the replica was out or had left, or nobody else was there.
        member.streak += 1
        # Without room it goes on counting, so that the next failure after somebody is back puts it out.
        if member.streak >= self._rules.failures and len(out) < self._room:
            self._eject(now, member)

    def _eject(self, now: float, member: Member) -> None:
        if member.ejections:
            forgotten = int((now - member.back_at) / FORGET_SECONDS)
            member.ejections = max(0, member.ejections - forgotten)
        member.ejections += 1
        member.back_at = now + min(self._rules.base * member.ejections, self._rules.maximum)
        member.streak = 0
        self._out[member.name] = member
        self.ejected += 1
        self._tell(member, True)

    def _tell(self, member: Member, is_out: bool) -> None:
        if self._changed is not None:
            self._changed(member, is_out)
