"""Which calls have a record of their own (``CallEnded``). Pure."""

from __future__ import annotations

from ..core.failure_kinds import CUT, Kind
from ..core.model import Outcome


def is_recorded(outcome: Outcome, slow: float) -> bool:
    """Whether a recorder wants a record of a call with this outcome.

    Args:
        outcome: the outcome of the call.
        slow: ``Recorder.slow_call`` in seconds; 0: the recorder wants every call.
    """
    failure = outcome.failure
    if not slow or outcome.failed_items:
        return True
    if failure is not None and failure.kind not in CUT and failure.kind is not Kind.DEPENDENCY:
        return True
    if outcome.started_at is not None and outcome.ended_at - outcome.started_at >= slow:
        return True
    return any(attempt.cause != "first" for attempt in outcome.attempts)
