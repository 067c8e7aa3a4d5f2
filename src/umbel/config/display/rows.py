"""A configuration as rows of keys and values without secrets, and the rows that differ between two configurations.

A row is a key that a file gives, or that its section inherits from ``[defaults.*]``; defaults of the schema are no
rows. Secrets are hidden in three ways: the value of a variable is its name (``${NAME}``), the value of a key with a
secret name (``Redactor``, with the names of all credentials that routes accept) is ``[redacted]``, and so are secrets
that are recognised by their form, such as bearer tokens. Two secrets are compared by their values, so a secret that has
changed is named, and neither value is shown.

A route has no name of its own, so it is called by its methods, host and path, not by its place in the file: a route
that is put before others must not make all of them differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...core.diagnostics.redact import REDACTED, Redactor, cut
from ..schema.access.credential_names import logs_of
from ..schema.reference.written_values import FORMATS, unit_of
from ..schema.section import Section
from ..schema.section_tree import keys_of
from ..schema.sections import Config, KeyPath, Route

ROWS_MAX = 20_000
"""The bound on rows; further ones are only counted."""
VALUE_CHARS_MAX = 400
"""The bound on the text of a value; ``…`` replaces the rest."""
CHANGES_MAX = 1000
"""The bound on rows of a difference; further ones are only counted."""
_NAMED = frozenset({"upstreams", "auth", "limits", "calls"})
"""The tables whose keys are names that an operator has chosen, which say nothing about the values below."""


class Row(NamedTuple):
    """One key with its value."""

    key: str
    """The dotted key, with the methods and the path of a route in place of its index."""
    path: KeyPath
    value: Any
    """The value itself, which may be secret."""
    shown: str
    """The value as JSON, or with a unit, without secrets."""


class Rows(NamedTuple):
    """The rows of a configuration, in the order of the schema."""

    rows: Mapping[str, Row]
    left_out: int


def rows_of(config: Config) -> Rows:
    """All rows of a configuration. Takes some microseconds per key."""
    shown = _Shown(config)
    rows: dict[str, Row] = {}
    left_out = 0
    for key, path, value, unit in _walk(config, (), ()):
        if len(rows) >= ROWS_MAX:
            left_out += 1
            continue
        name = ".".join(key)
        rows[name] = Row(name, path, value, shown.value(key, value, unit))
    return Rows(rows, left_out)


def as_answer(config: Config) -> dict[str, Any]:
    """The configuration as plain data.

    The line numbers of a large file take a second, so it is called in a thread.

    Returns:
        ``rows``: of each ``key``, ``value``, and ``at`` (``file:line``). ``left_out``: how many rows are not in it.
    """
    found = rows_of(config)
    rows = [{"key": row.key, "value": row.shown, "at": config.where(row.path)} for row in found.rows.values()]
    return {"rows": rows, "left_out": found.left_out}


def changes_of(before: Config, after: Config) -> dict[str, Any]:
    """The rows that differ between two configurations as plain data.

    Returns:
        ``added``, ``removed`` and ``changed``: of each row ``key``, ``at``, and ``before`` and ``after``, as far as the
        row has them. If the two are equal, they are secret. ``left_out``: how many rows are not in the lists.
    """
    old, new = rows_of(before).rows, rows_of(after).rows
    added = [
        {"key": name, "at": after.where(row.path), "after": row.shown} for name, row in new.items() if name not in old
    ]
    removed = [
        {"key": name, "at": before.where(row.path), "before": row.shown} for name, row in old.items() if name not in new
    ]
    changed = [
        {"key": name, "at": after.where(row.path), "before": old[name].shown, "after": row.shown}
        for name, row in new.items()
        if name in old and old[name].value != row.value
    ]
    count = len(added) + len(removed) + len(changed)
    room = CHANGES_MAX
    lists: dict[str, Any] = {}
    for name, rows in (("changed", changed), ("added", added), ("removed", removed)):
        lists[name] = rows[:room]
        room -= len(lists[name])
    return {**lists, "left_out": max(0, count - CHANGES_MAX)}


class _Shown:
    """Makes the texts of values."""

    def __init__(self, config: Config) -> None:
        self._hide = config.hide
        self._redactor = Redactor(logs_of(config).redact)

    def value(self, key: tuple[str, ...], value: Any, unit: str) -> str:
        """The text of a value. A name that holds a secret hides everything below it."""
        named = [part for at, part in enumerate(key) if at == 0 or key[at - 1] not in _NAMED or at == len(key) - 1]
        if any(map(self._redactor.is_secret, named)):
            return REDACTED
        if unit and isinstance(value, int | float) and not isinstance(value, bool):
            return self._hide(FORMATS[unit](value))
        text = json.dumps(self._plain(value), ensure_ascii=False, default=str)
        return text if len(text) <= VALUE_CHARS_MAX else f"{cut(text, VALUE_CHARS_MAX)}…"

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.text(self._hide(value))
        if isinstance(value, Mapping):
            return {
                self._hide(str(name)): REDACTED if self._redactor.is_secret(str(name)) else self._plain(inner)
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(each) for each in value]
        if isinstance(value, bool | None):
            return value
        return value if self._hide(str(value)) == str(value) else self._hide(str(value))


def _walk(
    value: Any, key: tuple[str, ...], path: KeyPath, unit: str = ""
) -> Iterator[tuple[tuple[str, ...], KeyPath, Any, str]]:
    """Yield the leaves: the key, the path in the tree, the value and its unit."""
    if isinstance(value, Section):
        for name, attribute in keys_of(type(value)).items():
            if attribute in value.model_fields_set:
                inner = getattr(value, attribute)
                yield from _walk(inner, (*key, name), (*path, name), unit_of(type(value), attribute))
    elif isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _walk(inner, (*key, str(name)), (*path, str(name)))
    elif isinstance(value, tuple) and value and all(isinstance(each, Section) for each in value):
        names = _names(value)
        for index, (name, inner) in enumerate(zip(names, value, strict=True)):
            yield from _walk(inner, (*key, name), (*path, index))
    elif len(path) > 1 or value != {}:  # Loading adds the empty tables of names.
        yield key, path, value, unit


def _names(items: tuple[Section, ...]) -> list[str]:
    """The names of the items of a list: those of routes, else their numbers from 1 on. Each is there once."""
    seen: dict[str, int] = {}
    names = []
    for number, item in enumerate(items, 1):
        name = route_name(item) if isinstance(item, Route) else f"#{number}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return names


def route_name(route: Route) -> str:
    """The name of a route for people, such as ``"GET /items/<id>"``."""
    methods = "|".join(route.methods) + " " if route.methods else ""
    return f'"{methods}{route.host or ""}{route.path}"'
