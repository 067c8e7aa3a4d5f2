"""The queues of a process's logs, for lints."""

from __future__ import annotations

from ...logs import FileRecorder
from .tasks import ObservedQueue


def log_queues(recorder: object) -> list[ObservedQueue]:
    """The queues of a ``FileRecorder``, which another recorder may wrap as its attribute ``inner``; else none.

    Must be called in the trio thread.
    """
    recorder = getattr(recorder, "inner", recorder)
    if not isinstance(recorder, FileRecorder):
        return []
    streams = recorder.statistics().streams.items()
    return [ObservedQueue(f"the log {name}", each.queued, each.dropped) for name, each in streams]
