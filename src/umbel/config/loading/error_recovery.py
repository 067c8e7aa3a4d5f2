"""What a tree with mistakes most likely meant, so that what needs a plan is judged all the same.

A misspelt key gets the name that it resembles. A value that is wrong or missing gets a stand-in that names nothing, so
that the rest of its table, its route and its upstream stays as it is; where no stand-in is needed it is left out. Which
keys that are is known, and nobody is blamed for what depends on them. The mended tree is never served: its mistakes
have been told.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..schema.section_tree import keys_of, section_at
from ..schema.sections import Config, KeyPath
from .did_you_mean import nearest
from .hidden_errors import FILLERS
from .validation_errors import Finding, findings

# Optional keys that names or other keys depend on: item is known where each stands, and what an upstream says of the
# fields that it writes decides which fields a call may name.
_STAND_INS: Mapping[str, Any] = {"each": "`[]`", "forwarded": False, "deadline_header": False}
# The items of lists whose other items are judged one by one.
_ITEMS: Mapping[str, Any] = {
    "forward_cookies": "stand-in",
    "forward_headers": "x-stand-in",
    "forward_query": "stand-in",
    "query": "stand-in",
    "urls": "http://stand-in",
}
_ROUNDS = 8
"""A stand-in may bring up the next mistake: a value that is left out, a table around it, …"""


class Mended(NamedTuple):
    """A tree that fits the schema as far as it could be mended."""

    tree: dict[str, Any]
    guessed: frozenset[KeyPath]
    """The keys that were wrong or missing: what stands there now is a guess, if anything does."""


def mended(data: dict[str, Any]) -> Mended:
    """A mended copy of ``data``. The rules between the keys of a table are not looked at."""
    tree = copy.deepcopy(data)
    tried: dict[KeyPath, int] = {}
    for _ in range(_ROUNDS):
        found = findings(Config, tree, rules=False)
        for each in found:
            if each.kind == "unknown":
                _rename(tree, each)
            else:
                _replace(tree, each.path, tried)
        if not found:
            break
    return Mended(tree, frozenset(tried))


def _rename(tree: dict[str, Any], unknown: Finding) -> None:
    """Give a key the name that it resembles, or leave it out."""
    table, key = _at(tree, unknown.path[:-1]), unknown.path[-1]
    if not isinstance(table, dict) or key not in table:
        return
    value = table.pop(key)
    section = section_at(Config, unknown.path[:-1])
    meant = nearest(str(key), keys_of(section)) if section is not None else None
    if meant is not None:
        table.setdefault(meant, value)


def _replace(tree: dict[str, Any], path: KeyPath, tried: dict[KeyPath, int]) -> None:
    """Put a stand-in in the place of a wrong value; the second time leave it out, and then what it stands in."""
    table, key = _at(tree, path[:-1]), path[-1]
    times = tried[path] = tried.get(path, 0) + 1
    stand_in = _stand_in(path)
    if stand_in is not None and times == 1 and isinstance(table, dict | list):
        table[key] = copy.deepcopy(stand_in)  # type: ignore[index]  # a list is reached by a number
    elif isinstance(table, dict) and key in table:
        del table[key]
    elif len(path) > 1:
        _replace(tree, path[:-1], tried)


def _stand_in(path: KeyPath) -> Any:
    """A valid value that names nothing, for a key that must stand or that others depend on; None for any other."""
    key, around = path[-1], path[:-1]
    if (section := section_at(Config, around)) is not None:
        name = keys_of(section).get(str(key))
        required = name is not None and section.model_fields[name].is_required()
        return FILLERS[str(key)] if required else _STAND_INS.get(str(key))
    if isinstance(key, int) and around[-1] in _ITEMS:
        return _ITEMS[str(around[-1])]
    if (section := section_at(Config, path)) is not None:
        return {
            each: FILLERS[each] for each, name in keys_of(section).items() if section.model_fields[name].is_required()
        }
    return None


def _at(tree: Any, path: KeyPath) -> Any:
    """What stands at ``path``; None if nothing does."""
    here = tree
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here
