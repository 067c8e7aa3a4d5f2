"""What to do with exceptions that nobody expected: note every leaf, and let pass what is not ours to end.

Used at the edges of a request and of the lifespan, where an exception group stops. An exception group's leaves are
looked at one by one, because a group that holds a cancel and a crash must lose neither.
"""

from __future__ import annotations

from ..events import Noted, Recorder
from ..model import RequestFacts
from ..net.exception_groups import leaves
from ..server.crash import split, text_of

__all__ = ["leaves", "note", "split"]


def note(recorder: Recorder, event: str, error: BaseException, facts: RequestFacts | None = None) -> None:
    """Record each leaf of ``error`` as one ``Noted`` with its traceback."""
    for leaf in leaves(error):
        recorder.record(Noted("error", event, f"{type(leaf).__name__}: {text_of(leaf)}", facts, error=leaf))
