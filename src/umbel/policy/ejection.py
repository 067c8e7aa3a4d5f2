"""Which replicas are left out for a while because they fail again and again: outlier ejection.

Told by ``upstream/balance.py`` what came of each attempt, and asked by it who is out. No clock: ``now`` is handed in,
in seconds. The rules are Envoy's (its outlier detection, "consecutive 5xx" and the ejection algorithm).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

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
    """The ejections among ``count`` replicas, which are known by their places."""

    __slots__ = ("_back_at", "_room", "_rules", "_streaks", "_times", "_until", "ejected")

    def __init__(self, count: int, rules: EjectionRules | None = None) -> None:
        self._rules = rules or EjectionRules()
        # The smallest amount keeps 0.7 * 10 from being less than 7.
        self._room = max(0, min(int(count * self._rules.share + 1e-9), count - 1))
        self._streaks = [0] * count
        self._times = [0] * count
        self._back_at = [0.0] * count
        self._until: dict[int, float] = {}
        self.ejected = 0
        """Ejections since the beginning."""

    def out(self, now: float) -> Collection[int]:
        """The places of those that are out."""
        if not self._until:
            return ()
        for place in [place for place, until in self._until.items() if until <= now]:
            del self._until[place]
        return self._until.keys()

    def left(self, now: float, place: int) -> float:
        """Seconds until it is back; 0 if it is not out."""
        return max(0.0, self._until.get(place, now) - now)

    def ended(self, now: float, place: int, has_failed: bool) -> None:
        """An attempt has ended. One that was cut, or says nothing of its replica, is not told."""
        if not has_failed:
            self._streaks[place] = 0
            return
        out = self.out(now)
        if place in out:
            return  # It began before the replica was out, or nobody else was left.
        self._streaks[place] += 1
        # Without room it goes on counting, so that the next failure after somebody is back puts it out.
        if self._streaks[place] >= self._rules.failures and len(out) < self._room:
            self._eject(now, place)

    def _eject(self, now: float, place: int) -> None:
        if self._times[place]:
            forgotten = int((now - self._back_at[place]) / FORGET_SECONDS)
            self._times[place] = max(0, self._times[place] - forgotten)
        self._times[place] += 1
        until = now + min(self._rules.base * self._times[place], self._rules.maximum)
        self._until[place] = self._back_at[place] = until
        self._streaks[place] = 0
        self.ejected += 1
