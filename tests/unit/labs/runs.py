"""Runs and a lab of known content."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from umbel.labs.model import Bar, Deadline, End, Lab, Note, Run, Wait, lab_of


def bar(number: int, name: str, start: float, end: float | None, how: End = "ok", **more: Any) -> Bar:
    values = {"parent": None, "line": 3, "reason": "", "stopped_at": 0, "waits": [Wait(start, 4)], **more}
    return Bar(id=number, name=name, start=start, end=end, how=how, **values)


def lab() -> Lab:
    """The first lab, with a horizon of 4 s, that is over at 1 s."""
    return replace(lab_of(1), horizon=4.0, over_at=1.0, over="it is over", measure=lambda run: str(len(run.running(3))))


def runs() -> dict[str, Run]:
    """A run in which two calls run on, one in which they are cancelled, and one of a single bar."""
    page = bar(1, "page", 0, 1, "failed", reason="ValueError: no", stopped_at=22)
    on = [bar(n, "call", 0, None, "running", parent=1, stopped_at=13, waits=[Wait(0, 13)]) for n in (2, 3)]
    cancelled = [bar(n, "call", 0, 1, "cancelled", parent=1, stopped_at=13, reason="Cancelled: why") for n in (2, 3)]
    note = Note(1.0, "502 <b>&", 31)
    return {
        "gather": Run("gather", 4.0, [page, *on], [note, note], []),
        "taskgroup": Run("taskgroup", 4.0, [page, *cancelled], [], [Deadline(0, 2.0, None)]),
        "trio": Run("trio", 4.0, [bar(1, "late", 0, 3), bar(2, "gone", 0, 2, "destroyed", reason="destroyed")], [], []),
    }
