"""The limits in the content of ``/status``, as rows of a table: the sums over all workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .auth_rows import applications


class LimitRow(NamedTuple):
    """What one section ``[limits.NAME]`` has decided, in all processes."""

    name: str
    keys: int
    admitted: int
    refused: int
    evicted: int


def limit_rows(status: Mapping[str, Any]) -> list[LimitRow]:
    """Return the rows in the order of the configuration; none if no process has answered or none has ``[limits]``."""
    rows: dict[str, LimitRow] = {}
    for app in applications(status):
        for each in app.get("limits", ()):
            name, *counts = (each[field] for field in LimitRow._fields)
            before = rows.get(name, LimitRow(name, 0, 0, 0, 0))
            rows[name] = LimitRow(name, *(one + other for one, other in zip(before[1:], counts, strict=True)))
    return list(rows.values())
