"""The limits in the content of ``/status``, as rows of a table: the sums over all workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .auth_rows import applications


class LimitRow(NamedTuple):
    """What one section ``[limits.NAME]`` has decided, in all processes."""

    name: str
    shared: str
    """Whose requests count together: ``machine`` or ``worker``."""
    keys: int
    """Of ``machine`` the most that a process has, since all have the same ones; of ``worker`` the sum."""
    admitted: int
    refused: int
    evicted: int
    """With the keys that the master has evicted, which adds up what the workers have spent."""
    waiting: int
    delayed: int


def limit_rows(status: Mapping[str, Any]) -> list[LimitRow]:
    """Return the rows in the order of the configuration; none if no process has answered or none has ``[limits]``."""
    rows: dict[str, LimitRow] = {}
    for app in applications(status):
        for each in app.get("limits", ()):
            row = LimitRow(*(each[field] for field in LimitRow._fields))
            before = rows.get(row.name)
            rows[row.name] = row if before is None else _added(before, row)
    master = status.get("master", {}).get("limits", {})
    return [row._replace(evicted=row.evicted + master.get(row.name, {}).get("evicted", 0)) for row in rows.values()]


def _added(one: LimitRow, other: LimitRow) -> LimitRow:
    keys = max(one.keys, other.keys) if other.shared == "machine" else one.keys + other.keys
    counts = (each + more for each, more in zip(one[3:], other[3:], strict=True))
    return LimitRow(one.name, other.shared, keys, *counts)
