"""A lab with the runs of its programs as one JSON document, for scripts and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .model import Lab, Run, rows


def as_document(lab: Lab, runs: Mapping[str, Run]) -> str:
    """Return the text of the lab and what its programs did, as JSON."""
    return msgspec.json.encode({**text_of(lab), "columns": columns_of(lab, runs)}).decode()


def text_of(lab: Lab) -> dict[str, Any]:
    """Return what a reader is told: the story, the question and its answer, as plain data. Times are in seconds."""
    return {
        "number": lab.number,
        "title": lab.title,
        "phenomenon": lab.phenomenon,
        "story": " ".join(lab.story.split()),
        "question": " ".join(lab.question.split()),
        "choices": lab.choices,
        "right": lab.right,
        "answer": " ".join(lab.answer.split()),
        "why": lab.paragraphs(),
        "measured": lab.measured,
        "horizon": lab.horizon,
        "over_at": lab.over_at,
        "over": lab.over,
    }


def columns_of(lab: Lab, runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Return each program with its source, its figure and its bars, as data for msgspec.

    Times are in seconds from the start of the run. ``rows`` are the bars in the order of a picture, where bars that
    are alike are one row with a ``count``. ``running`` are the moments at which the number of running bars changes.
    """
    return [
        {
            "key": column.key,
            "title": column.title,
            "library": column.library,
            "file": f"{lab.package}/{column.module}.py",
            "source": lab.source(column),
            "figure": lab.measure(runs[column.key]),
            "rows": rows(runs[column.key].bars),
            "running": _running(runs[column.key]),
            "notes": runs[column.key].notes,
            "deadlines": runs[column.key].deadlines,
        }
        for column in lab.columns
    ]


def _running(run: Run) -> list[tuple[float, int]]:
    moments = sorted({0.0, *(bar.start for bar in run.bars), *(bar.end for bar in run.bars if bar.end is not None)})
    return [(at, len(run.running(at))) for at in moments]
