"""Records of unexpected exceptions (crashes): one per leaf of an exception group."""

from __future__ import annotations

from ...core.events import LogMessage, Recorder
from ...core.model import RequestFacts
from ...net.exception_groups import leaves, text_of


def record(recorder: Recorder, event: str, error: BaseException, facts: RequestFacts | None = None) -> None:
    """Record each leaf of ``error`` as a ``LogMessage`` of level "error" with its traceback. ``event`` is its name."""
    for leaf in leaves(error):
        recorder.record(LogMessage("error", event, f"{type(leaf).__name__}: {text_of(leaf)}", facts, error=leaf))
