"""Error recovery: what is still found wrong in a configuration beside its first mistakes, so that one run reports all.

Two things stop at a mistake. pydantic enforces the constraints between the keys of a table only where each key is valid
by itself: ``hidden_violations`` removes the invalid keys and validates the rest. And a plan is compiled only from a
valid configuration: ``recover`` makes the tree valid. It gives a misspelt key the name that it resembles, and puts a
placeholder that names nothing in the place of a wrong or missing value, so that the rest of its table, its route and
its upstream stays as it is; where no placeholder is needed, it removes the value. The replaced keys are returned, so
that no check reports a problem that only follows from a placeholder. The recovered tree must never be served.

No function here changes the tree that it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..schema.section import Section
from ..schema.section_tree import keys_of, section_at
from ..schema.sections import Config, KeyPath
from .did_you_mean import nearest
from .validation_errors import SchemaViolation, schema_violations

_NAME = "placeholder"
_URL = "http://placeholder.invalid"
"""No host has such a name (RFC 2606 section 2), and nothing connects to an upstream of a recovered tree."""

PLACEHOLDERS: Mapping[str, Any] = {
    "urls": [_URL],
    "url": _URL,
    "after": "1s",
    "value": 1,
    "upstream": _NAME,
    "path": "/",
    "calls": {_NAME: {"upstream": _NAME, "path": "/"}},
}
"""A valid value for each key that some section requires."""

# Optional keys that other mistakes depend on: each defines the name item, and the other two decide which header fields
# a call may set.
_OPTIONAL_PLACEHOLDERS: Mapping[str, Any] = {"each": "`[]`", "forwarded": False, "deadline_header": False}
# The items of lists whose items are checked one by one.
_ITEM_PLACEHOLDERS: Mapping[str, Any] = {
    "forward_cookies": _NAME,
    "forward_headers": f"x-{_NAME}",
    "forward_query": _NAME,
    "query": _NAME,
    "urls": _URL,
}
_ROUNDS = 8
"""A placeholder may bring up the next mistake: a value that is removed, a table around it, …"""


class RecoveredTree(NamedTuple):
    """A tree that fits the schema, as far as recovery succeeded."""

    tree: dict[str, Any]
    replaced: frozenset[KeyPath]
    """The keys that were wrong or missing: each holds a placeholder now, or nothing."""


def recover(data: dict[str, Any]) -> RecoveredTree:
    """Return a copy of ``data`` that fits the schema. The constraints between the keys of a table are not enforced."""
    tree = copy.deepcopy(data)
    tried: dict[KeyPath, int] = {}
    for _ in range(_ROUNDS):
        found = schema_violations(Config, tree, constraints=False)
        changed: set[KeyPath] = set()
        for each in found:
            # Where an earlier mistake of this round changed the tree, this one may be gone: the next round shows it.
            if any(each.path[:end] in changed for end in range(1, len(each.path) + 1)):
                continue
            if each.kind == "unknown":
                _rename(tree, each)
            else:
                changed.add(_replace(tree, each.path, tried))
        if not found:
            break
    return RecoveredTree(tree, frozenset(tried))


def _rename(tree: dict[str, Any], unknown: SchemaViolation) -> None:
    """Give an unknown key the name that it resembles, or remove it."""
    table, key = _at(tree, unknown.path[:-1]), unknown.path[-1]
    if not isinstance(table, dict) or key not in table:
        return
    value = table.pop(key)
    section = section_at(Config, unknown.path[:-1])
    meant = nearest(str(key), keys_of(section)) if section is not None else None
    if meant is not None:
        table.setdefault(meant, value)


def _replace(tree: dict[str, Any], path: KeyPath, tried: dict[KeyPath, int]) -> KeyPath:
    """Put a placeholder in the place of a wrong value; the second time remove it, and then the table or list around it.

    Return where the tree was changed: ``path``, or the path of the table or list around it.
    """
    table, key = _at(tree, path[:-1]), path[-1]
    times = tried[path] = tried.get(path, 0) + 1
    placeholder = _placeholder(path)
    if placeholder is not None and times == 1 and isinstance(table, dict | list):
        table[key] = copy.deepcopy(placeholder)  # type: ignore[index]  # a list is reached by a number
    elif isinstance(table, dict) and key in table:
        del table[key]
    elif len(path) > 1:
        return _replace(tree, path[:-1], tried)
    return path


def _placeholder(path: KeyPath) -> Any:
    """Return a valid value that names nothing, for a key that is required or that others depend on; else None."""
    key, around = path[-1], path[:-1]
    if (section := section_at(Config, around)) is not None:
        name = keys_of(section).get(str(key))
        required = name is not None and section.model_fields[name].is_required()
        return PLACEHOLDERS[str(key)] if required else _OPTIONAL_PLACEHOLDERS.get(str(key))
    if isinstance(key, int) and around[-1] in _ITEM_PLACEHOLDERS:
        return _ITEM_PLACEHOLDERS[str(around[-1])]
    if (section := section_at(Config, path)) is not None:
        return {each: PLACEHOLDERS[each] for each in _required(section)}
    return None


def _at(tree: Any, path: KeyPath) -> Any:
    """Return what stands at ``path``; None if nothing does."""
    here = tree
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here


def hidden_violations(model: type[Section], data: Any, known: Iterable[SchemaViolation]) -> list[SchemaViolation]:
    """Return the constraints between keys that ``data`` breaks beside the mistakes ``known``, which hid them.

    Each known mistake is removed, what is then missing gets a placeholder, and the rest is validated. A violation of a
    constraint about a key that was removed or replaced is left out: it may only follow from that.
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
    return [
        each
        for each in schema_violations(model, _without(model, data, (), touched))
        if each.kind == "constraint" and not touched.get(each.path[:-1], set()) & set(each.about)
    ]


def _owner(model: type[Section], path: KeyPath) -> tuple[KeyPath, str | int]:
    """Return the path of the table that a mistake belongs to, and the key in it."""
    if section_at(model, path) and isinstance(path[-1], str):
        return path[:-1], path[-1]  # a whole section is wrong, its name for one
    end = next((end for end in range(len(path) - 1, 0, -1) if section_at(model, path[:end])), 0)
    return path[:end], path[end]


def _without(model: type[Section], data: Any, path: KeyPath, touched: Mapping[KeyPath, set[str | int]]) -> Any:
    """Return a copy of ``data`` without the touched keys, and with placeholders for what its sections require."""
    section = section_at(model, path)
    if section is not None and not isinstance(data, dict):
        if path[-1:] and path[-1] not in touched.get(path[:-1], ()):
            return data  # No mistake: where a table may stand, something else may too, such as a replica's bare URL.
        data = {}
    if isinstance(data, dict):
        bad = touched.get(path, set())
        rest = {key: _without(model, value, (*path, key), touched) for key, value in data.items() if key not in bad}
        if section is None:
            return rest
        return rest | {key: PLACEHOLDERS[key] for key in _required(section) if not rest.get(key)}
    if isinstance(data, list):
        return [_without(model, value, (*path, index), touched) for index, value in enumerate(data)]
    return data


def _required(section: type[Section]) -> list[str]:
    """Return the keys that a section requires."""
    return [key for key, name in keys_of(section).items() if section.model_fields[name].is_required()]
