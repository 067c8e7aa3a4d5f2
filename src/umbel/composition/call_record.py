"""Which calls have a record of their own (``CallEnded``). Pure."""

from __future__ import annotations

from ..core.failure_kinds import CUT, Kind
from ..core.model import Outcome


def is_recorded(outcome: Outcome, slow: float, answered_at: float | None = None) -> bool:
    """Whether a recorder wants a record of a call with this outcome.

    Args:
        outcome: the outcome of the call.
        slow: ``Recorder.slow_call`` in seconds; 0: the recorder wants every call.
        answered_at: when the head of a streamed response came, in ``trio.current_time()``: a long body is not a slow
            call. None: the end of the call counts.
    """
    failure = outcome.failure
    if not slow or outcome.failed_items:
        return True
    if failure is not None and failure.kind not in CUT and failure.kind is not Kind.DEPENDENCY:
        return True
    end = outcome.ended_at if answered_at is None else answered_at
    if outcome.started_at is not None and end - outcome.started_at >= slow:
        return True
    return any(attempt.cause != "first" for attempt in outcome.attempts)
