"""The authenticators in the content of ``/status``, as rows of a table: those of all workers together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_WORST_FIRST = ("none", "failing", "ok")


class AuthRow(NamedTuple):
    """The keys of one source of one section ``[auth.NAME]``, in all processes."""

    name: str
    kind: str
    source: str
    """The issuer, for API keys the file; empty for client certificates."""
    state: str
    """The worst of all processes: none, failing or ok."""
    keys: int
    """The fewest of all processes."""
    age: float | None
    """The highest of all processes, in seconds; None: no process has one."""
    cached_tokens: int
    """Of the whole section, the sum over all processes."""
    last_error: str
    """That of a process with the worst state."""


def auth_rows(status: Mapping[str, Any]) -> list[AuthRow]:
    """Return the rows in the order of the configuration; none if no process has answered or none has ``[auth]``."""
    rows: dict[tuple[str, str], AuthRow] = {}
    for app in applications(status):
        for section in app.get("auth", ()):
            for row in _rows_of(section):
                key = row.name, row.source
                rows[key] = _joined(rows[key], row) if key in rows else row
    return list(rows.values())


def applications(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield the counters of the application of each process."""
    if "slots" not in status:
        yield status.get("app", {})
        return
    for slot in status["slots"]:
        for worker in slot["workers"]:
            yield worker.get("stats", {}).get("app", {})


def _rows_of(section: Mapping[str, Any]) -> Iterator[AuthRow]:
    name, kind, cached = section["name"], section["kind"], section["cached_tokens"]
    for keys in section["sources"]:
        source = keys["issuer"] or keys["source"]
        yield AuthRow(name, kind, source, keys["state"], keys["keys"], keys["age"], cached, keys["last_error"])
    if not section["sources"]:
        yield AuthRow(name, kind, "", section["state"], 0, None, cached, "")


def _joined(one: AuthRow, other: AuthRow) -> AuthRow:
    worst = min(one, other, key=lambda row: _WORST_FIRST.index(row.state))
    ages = [row.age for row in (one, other) if row.age is not None]
    return worst._replace(
        keys=min(one.keys, other.keys),
        age=max(ages, default=None),
        cached_tokens=one.cached_tokens + other.cached_tokens,
        last_error=worst.last_error or one.last_error or other.last_error,
    )
