"""Error recovery: it lets validation go on after a mistake in the configuration, so that one run reports all mistakes.

Theory
------
**Problem.** Two checks do not happen beside a mistake. pydantic checks the constraints between the keys of a table only
if each key of the table is valid. And a route can be compiled only from a valid ``Config``. This module removes both
obstacles; ``load.py`` explains where it runs.

**Hidden violations** (``hidden_violations``). It takes the known mistakes, removes their keys from a copy of the tree,
adds placeholders for required keys that are missing or empty there, and validates the copy. (A call without ``respond``
requires ``upstream`` and ``path``.) The constraints that pydantic then finds broken are new problems, except those
about the key of a mistake, or about the key that an unknown key resembles: these may only be a consequence.

**Recovery** (``recover``). It changes a copy of the tree until the copy fits the schema, in at most ``_ROUNDS`` rounds.
Constraints between keys do not count here. Each round validates the copy and handles each violation:

- An unknown key is renamed to the known key that it resembles. It is removed if it resembles none, or if the table has
  that key already.
- A wrong or missing value is replaced by a *placeholder*, if there is one for its key: for required keys
  (``PLACEHOLDERS``), for keys on which other checks depend (``_OPTIONAL_PLACEHOLDERS``), for items of some lists
  (``_ITEM_PLACEHOLDERS``), and for a route, upstream or call as a whole (a table of its required keys).
- Any other wrong value of a table is removed. For a wrong item of a list, the list is replaced or removed.
- If a placeholder is wrong as well, a later round removes it, and another one replaces the table or list around it.

So as much as possible of the table, the route and the upstream stays as it is and is checked. A placeholder is a valid
value that names nothing in the configuration. A round skips a violation at or below a place where it has replaced or
removed a wrong value, since the violation may be gone. If the tree does not fit the schema after the last round,
``load.py`` leaves out the upstreams, routes and sections that do not fit.

**Marks.** ``recover`` returns the paths of all wrong and missing values that it has replaced or removed, but not those
of unknown keys. A check must not report a problem at one of these paths or below (``Config.is_placeholder``), nor
report a name as unknown if a value there may have defined that name (``Config.has_lost``).

**Invariants.** The recovered tree is never served. ``recover`` and ``hidden_violations`` do not change the tree that
they are given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ...schema.section import Section
from ...schema.section_tree import keys_of, section_at
from ...schema.sections import Call, Config, KeyPath
from .did_you_mean import nearest
from .validation_errors import SchemaViolation, schema_violations

_NAME = "placeholder"
_URL = "http://placeholder.invalid"
"""A URL of a host that cannot exist (RFC 2606 section 2). Nothing connects to an upstream of a recovered tree."""

PLACEHOLDERS: Mapping[str, Any] = {
    "urls": [_URL],
    "url": _URL,
    "after": "1s",
    "value": 1,
    "upstream": _NAME,
    "path": "/",
    "to": "/",
    "origins": ["https://placeholder.invalid"],
    "share": "1%",
    "kind": "jwt",
    "algorithms": ["RS256"],
    "issuers": [{"iss": _URL, "keys": _NAME}],
    "iss": _URL,
    "file": _NAME,
    "allow": [f"dns:{_NAME}.invalid"],
    "key": "client.ip",
    "rate": "1/s",
    "burst": 1,
}
"""A valid value for each key that any section requires."""

# Optional keys that other checks depend on: ``each`` defines the name ``item``; a call needs ``upstream`` and ``path``,
# and a route usually ``calls``; the other two decide which header fields a call may set.
_OPTIONAL_PLACEHOLDERS: Mapping[str, Any] = {
    "each": "`[]`",
    "forwarded": False,
    "deadline_header": False,
    "upstream": _NAME,
    "path": "/",
    "calls": {_NAME: {"upstream": _NAME, "path": "/"}},
}
# Placeholders for single items of lists.
_ITEM_PLACEHOLDERS: Mapping[str, Any] = {
    "forward_cookies": _NAME,
    "forward_headers": f"x-{_NAME}",
    "forward_query": _NAME,
    "query": _NAME,
    "urls": _URL,
}
_ROUNDS = 8
"""The most rounds of ``recover``: each change may show the next violation."""


class RecoveredTree(NamedTuple):
    """A tree that fits the schema as far as recovery has succeeded."""

    tree: dict[str, Any]
    replaced: frozenset[KeyPath]
    """The paths of the keys that were wrong or missing. Each holds a placeholder, or is removed."""


def recover(data: dict[str, Any]) -> RecoveredTree:
    """Return a copy of ``data`` that fits the schema, without regard to the constraints between keys."""
    tree = copy.deepcopy(data)
    tried: dict[KeyPath, int] = {}
    for _ in range(_ROUNDS):
        found = schema_violations(Config, tree, constraints=False)
        changed: set[KeyPath] = set()
        for each in found:
            # An earlier change at this place or around it may have removed this violation: leave it to the next round.
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
    section = section_at(Config, unknown.path[:-1], tree)
    meant = nearest(str(key), keys_of(section)) if section is not None else None
    if meant is not None:
        table.setdefault(meant, value)


def _replace(tree: dict[str, Any], path: KeyPath, tried: dict[KeyPath, int]) -> KeyPath:
    """Replace a wrong value: the first time by a placeholder, then remove it, then replace the table or list around it.

    ``tried`` counts the replacements at each path. Returns the path at which the tree was changed: ``path`` or the path
    of the table or list around it.
    """
    table, key = _at(tree, path[:-1]), path[-1]
    times = tried[path] = tried.get(path, 0) + 1
    placeholder = _placeholder(path, tree)
    if placeholder is not None and times == 1 and isinstance(table, dict | list):
        table[key] = copy.deepcopy(placeholder)  # type: ignore[index]  # a list is reached by a number
    elif isinstance(table, dict) and key in table:
        del table[key]
    elif len(path) > 1:
        return _replace(tree, path[:-1], tried)
    return path


def _placeholder(path: KeyPath, tree: dict[str, Any]) -> Any:
    """Return the placeholder for a key that is required or that other checks depend on; None for any other key."""
    key, around = path[-1], path[:-1]
    if (section := section_at(Config, around, tree)) is not None:
        name = keys_of(section).get(str(key))
        required = name is not None and section.model_fields[name].is_required()
        return PLACEHOLDERS[str(key)] if required else _OPTIONAL_PLACEHOLDERS.get(str(key))
    if isinstance(key, int) and around[-1] in _ITEM_PLACEHOLDERS:
        return _ITEM_PLACEHOLDERS[str(around[-1])]
    if (section := section_at(Config, path, tree)) is not None:
        return {each: PLACEHOLDERS[each] for each in _required(section)}
    return None


def _at(tree: Any, path: KeyPath) -> Any:
    """Return the value at ``path``; None if the tree has no such path."""
    here = tree
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here


def hidden_violations(model: type[Section], data: Any, known: Iterable[SchemaViolation]) -> list[SchemaViolation]:
    """Return the broken constraints between keys that pydantic did not report because of the mistakes ``known``.

    See the theory. Violations about a removed or replaced key are left out.
    """
    touched: dict[KeyPath, set[str | int]] = {}
    section_of = partial(section_at, model, data=data)
    for each in known:
        table, key = _owner(section_of, each.path)
        keys = touched.setdefault(table, set())
        keys.add(key)
        section = section_of(table)
        if each.kind == "unknown" and section and (meant := nearest(str(key), keys_of(section))):
            keys.add(meant)
    if not touched:
        return []
    return [
        each
        for each in schema_violations(model, _without(section_of, data, (), touched))
        if each.kind == "constraint" and not touched.get(each.path[:-1], set()) & set(each.about)
    ]


_SectionOf = Callable[[KeyPath], type[Section] | None]
"""The section at a path of the data."""


def _owner(section_of: _SectionOf, path: KeyPath) -> tuple[KeyPath, str | int]:
    """Return the path of the table that a mistake belongs to, and the key in it."""
    if section_of(path) and isinstance(path[-1], str):
        return path[:-1], path[-1]  # A whole section is wrong, for example its name.
    end = next((end for end in range(len(path) - 1, 0, -1) if section_of(path[:end])), 0)
    return path[:end], path[end]


def _without(section_of: _SectionOf, data: Any, path: KeyPath, touched: Mapping[KeyPath, set[str | int]]) -> Any:
    """Return a copy of ``data`` without the touched keys, and with placeholders for missing required keys.

    ``touched`` holds the keys to remove, by the path of their table.
    """
    section = section_of(path)
    if section is not None and not isinstance(data, dict):
        if path[-1:] and path[-1] not in touched.get(path[:-1], ()):
            return data  # No mistake: the schema allows another type too, such as the URL of a replica.
        data = {}
    if isinstance(data, dict):
        bad = touched.get(path, set())
        rest = {
            key: _without(section_of, value, (*path, key), touched) for key, value in data.items() if key not in bad
        }
        if section is None:
            return rest
        needed = {key: PLACEHOLDERS[key] for key in _required(section)}
        if section is Call and "respond" not in data:
            needed |= {key: _OPTIONAL_PLACEHOLDERS[key] for key in ("upstream", "path")}
        return rest | {key: value for key, value in needed.items() if not rest.get(key)}
    if isinstance(data, list):
        return [_without(section_of, value, (*path, index), touched) for index, value in enumerate(data)]
    return data


def _required(section: type[Section]) -> list[str]:
    """Return the keys that a section requires."""
    return [key for key, name in keys_of(section).items() if section.model_fields[name].is_required()]
