"""Records of state changes: one for each change of a breaker, an ejection or a replica's health.

These changes are rare, so their records need no limit: a breaker changes at most a few times per ``open_for``, and a
replica changes only after several failures or checks in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.events import Level, LogMessage, Recorder
from ..policy.breaker import BreakerEvent, BreakerState, BreakerTransition

_REASONS = {
    BreakerEvent.WAITED: "a call is admitted as a probe",
    BreakerEvent.PROVED: "the probe succeeded",
    BreakerEvent.FAILED: "the probe failed",
}


@dataclass(frozen=True, slots=True)
class StateEvents:
    """Writer of the records of state changes of one upstream."""

    recorder: Recorder
    upstream: str
    """Name of the upstream in the records."""

    def breaker(self, change: BreakerTransition) -> None:
        """Record a change of the breaker: ``breaker.open``, ``breaker.half-open`` or ``breaker.closed``."""
        reason = _REASONS.get(change.event) or f"{change.failures} of {change.requests} attempts failed"
        level: Level = "warning" if change.state is BreakerState.OPEN else "info"
        message = f"the breaker of {self.upstream} is {change.state}: {reason}"
        fields = {"upstream": self.upstream, "state": str(change.state), "reason": reason}
        self.recorder.record(LogMessage(level, f"breaker.{change.state}", message, fields=fields))

    def ejected(self, replica: str, seconds: float) -> None:
        """Record that a replica was ejected for ``seconds``: ``ejection.out``."""
        self._replica("warning", "ejection", "out", replica, f"too many failures in a row: ejected for {seconds:.0f} s")

    def returned(self, replica: str) -> None:
        """Record that the ejection of a replica is over: ``ejection.back``. The next call causes this record."""
        self._replica("info", "ejection", "back", replica, "the ejection is over")

    def down(self, replica: str, failures: int) -> None:
        """Record that a replica is down by its health checks: ``health.down``."""
        self._replica("warning", "health", "down", replica, f"{failures} checks in a row failed")

    def up(self, replica: str, successes: int) -> None:
        """Record that a replica is up by its health checks: ``health.up``."""
        self._replica("info", "health", "up", replica, f"{successes} checks in a row passed")

    def _replica(self, level: Level, what: str, state: str, replica: str, reason: str) -> None:
        fields = {"upstream": self.upstream, "replica": replica, "state": state, "reason": reason}
        message = f"{replica} is {state}: {reason}"
        self.recorder.record(LogMessage(level, f"{what}.{state}", message, fields=fields))
