"""Records of state changes: one for each change of a breaker, an ejection or a replica's health.

They are few by nature: a breaker changes when its window is full or its time is over, a replica when it has failed
several times in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.events import Level, LogMessage, Recorder
from ..policy.breaker import BreakerEvent, BreakerState, BreakerTransition

_REASONS = {
    BreakerEvent.WAITED: "a call is let through as a probe",
    BreakerEvent.PROVED: "the probe was answered",
    BreakerEvent.FAILED: "the probe failed",
}


@dataclass(frozen=True, slots=True)
class StateEvents:
    """Writes the state changes of one upstream to ``recorder``; ``upstream`` is its name in records."""

    recorder: Recorder
    upstream: str

    def breaker(self, change: BreakerTransition) -> None:
        """Record that the breaker changed: ``breaker.open``, ``breaker.half-open`` or ``breaker.closed``."""
        reason = _REASONS.get(change.event) or f"{change.failures} of {change.requests} attempts failed"
        level: Level = "warning" if change.state is BreakerState.OPEN else "info"
        message = f"the breaker of {self.upstream} is {change.state}: {reason}"
        fields = {"upstream": self.upstream, "state": str(change.state), "reason": reason}
        self.recorder.record(LogMessage(level, f"breaker.{change.state}", message, fields=fields))

    def ejected(self, replica: str, seconds: float) -> None:
        """Record that a replica is ejected for ``seconds``: ``ejection.out``."""
        self._replica("warning", "ejection", "out", replica, f"too many failures in a row: out for {seconds:.0f} s")

    def returned(self, replica: str) -> None:
        """Record that it is back: ``ejection.back``. That is seen by the next call, not at the moment itself."""
        self._replica("info", "ejection", "back", replica, "its time is over")

    def down(self, replica: str, failures: int) -> None:
        """Record that health checks took a replica down: ``health.down``."""
        self._replica("warning", "health", "down", replica, f"{failures} checks in a row failed")

    def up(self, replica: str, successes: int) -> None:
        """Record that health checks brought it back: ``health.up``."""
        self._replica("info", "health", "up", replica, f"{successes} checks in a row passed")

    def _replica(self, level: Level, what: str, state: str, replica: str, reason: str) -> None:
        fields = {"upstream": self.upstream, "replica": replica, "state": state, "reason": reason}
        message = f"{replica} is {state}: {reason}"
        self.recorder.record(LogMessage(level, f"{what}.{state}", message, fields=fields))
