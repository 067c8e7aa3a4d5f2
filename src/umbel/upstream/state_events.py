"""The records of what opens, closes, goes out and comes back: one for each change of a breaker or a replica.

They decide nothing, and there are few by nature: a breaker changes when its window is full or its time is over, a
replica when it failed several times in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.events import Level, Noted, Recorder
from ..policy.breaker import BreakerEvent, BreakerState, BreakerTransition

_REASONS = {
    BreakerEvent.WAITED: "a call is let through as a probe",
    BreakerEvent.PROVED: "the probe was answered",
    BreakerEvent.FAILED: "the probe failed",
}


@dataclass(frozen=True, slots=True)
class StateEvents:
    """The changes of one upstream; ``upstream`` is its name in records."""

    recorder: Recorder
    upstream: str

    def breaker(self, change: BreakerTransition) -> None:
        """The breaker's state is another one: ``breaker.open``, ``breaker.half-open`` or ``breaker.closed``."""
        reason = _REASONS.get(change.event) or f"{change.failures} of {change.requests} attempts failed"
        level: Level = "warning" if change.state is BreakerState.OPEN else "info"
        message = f"the breaker of {self.upstream} is {change.state}: {reason}"
        fields = {"upstream": self.upstream, "state": str(change.state), "reason": reason}
        self.recorder.record(Noted(level, f"breaker.{change.state}", message, fields=fields))

    def ejected(self, replica: str, seconds: float) -> None:
        """A replica is left out for so long: ``ejection.out``."""
        self._replica("warning", "ejection", "out", replica, f"too many failures in a row: out for {seconds:.0f} s")

    def returned(self, replica: str) -> None:
        """It takes part again: ``ejection.back``. Told when that is first seen, which is with the next call."""
        self._replica("info", "ejection", "back", replica, "its time is over")

    def down(self, replica: str, failures: int) -> None:
        """A replica is down by its health checks: ``health.down``."""
        self._replica("warning", "health", "down", replica, f"{failures} checks in a row failed")

    def up(self, replica: str, successes: int) -> None:
        """It is up again by them: ``health.up``."""
        self._replica("info", "health", "up", replica, f"{successes} checks in a row passed")

    def _replica(self, level: Level, what: str, state: str, replica: str, reason: str) -> None:
        fields = {"upstream": self.upstream, "replica": replica, "state": state, "reason": reason}
        message = f"{replica} is {state}: {reason}"
        self.recorder.record(Noted(level, f"{what}.{state}", message, fields=fields))
