"""The broken rules that other mistakes hide: pydantic looks at a table's rules only when each of its keys is right.

With these one run tells every mistake. It reads no file and changes no value that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..schema.section import Section
from ..schema.section_tree import keys_of, section_at
from ..schema.sections import KeyPath
from .did_you_mean import nearest
from .validation_errors import Finding, findings

FILLERS: Mapping[str, Any] = {
    "urls": ["http://filler"],
    "url": "http://filler",
    "after": "1s",
    "value": 1,
    "upstream": "filler",
    "path": "/",
    "calls": {"filler": {"upstream": "filler", "path": "/"}},
}
"""A valid value for each key that some section requires."""


def broken_rules(model: type[Section], data: Any, known: Iterable[Finding]) -> list[Finding]:
    """The rules between keys that ``data`` breaks besides the mistakes ``known``, which kept them from being looked at.

    Each mistake is taken out, what then is missing is filled in, and the rules run on the rest. A rule about a key
    that was taken out or filled in is not to be trusted and says nothing.
    """
    touched: dict[KeyPath, set[str | int]] = {}
    for each in known:
        table, key = _owner(model, each.path)
        keys = touched.setdefault(table, set())
        keys.add(key)
        section = section_at(model, table)
        if each.kind == "unknown" and section and (meant := nearest(str(key), keys_of(section))):
            keys.add(meant)
    if not touched:
        return []
    mended = _mended(model, data, (), touched)
    return [
        each
        for each in findings(model, mended)
        if each.kind == "rule" and not touched.get(each.path[:-1], set()) & set(each.about)
    ]


def _owner(model: type[Section], path: KeyPath) -> tuple[KeyPath, str | int]:
    """The table that a mistake belongs to, and the key in it."""
    if section_at(model, path) and isinstance(path[-1], str):
        return path[:-1], path[-1]  # a whole section is wrong, its name for one
    end = next((end for end in range(len(path) - 1, 0, -1) if section_at(model, path[:end])), 0)
    return path[:end], path[end]


def _mended(model: type[Section], data: Any, path: KeyPath, touched: Mapping[KeyPath, set[str | int]]) -> Any:
    """A copy of ``data`` without the keys that were touched, and with what its sections require."""
    section = section_at(model, path)
    if section is not None and not isinstance(data, dict):
        if path[-1:] and path[-1] not in touched.get(path[:-1], ()):
            return data  # No mistake: where a table may stand, something else may too, such as a replica's bare URL.
        data = {}
    if isinstance(data, dict):
        bad = touched.get(path, set())
        copy = {key: _mended(model, value, (*path, key), touched) for key, value in data.items() if key not in bad}
        return copy if section is None else copy | {key: FILLERS[key] for key in _missing(section, copy)}
    if isinstance(data, list):
        return [_mended(model, value, (*path, index), touched) for index, value in enumerate(data)]
    return data


def _missing(section: type[Section], table: Mapping[str, Any]) -> list[str]:
    required = (key for key, name in keys_of(section).items() if section.model_fields[name].is_required())
    return [key for key in required if not table.get(key)]
