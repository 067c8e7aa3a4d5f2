"""What a tree with mistakes most likely meant, so that what needs a plan can be judged all the same.

Used by ``load.py`` between validating and the checks. The mended tree is never served: the mistakes have been told.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from .findings import Finding
from .schema import Config, KeyPath
from .sections import keys_of, section_at
from .suggest import nearest

# Keys that no name, template or expression depends on: without them a plan is as right or wrong as with them.
_PLAIN = frozenset(
    {
        "cache_control",
        "connect_timeout",
        "deadline",
        "deadline_header",
        "decode",
        "etag",
        "expose",
        "forwarded",
        "keepalive_expiry",
        "krakend_compat",
        "limit",
        "max_body",
        "max_concurrency",
        "max_fields",
        "max_head",
        "max_items",
        "max_queue",
        "null_on",
        "ok",
        "pass_body",
        "pass_status",
        "public_only",
        "stream",
        "timeout",
    }
)


def mended(data: dict[str, Any], found: Iterable[Finding]) -> dict[str, Any]:
    """A copy of ``data`` where a misspelt key has the name that it resembles, and other unknown and plain wrong
    values are left out."""
    tree = copy.deepcopy(data)
    for each in found:
        table = _table_at(tree, each.path[:-1])
        key = each.path[-1] if each.path else None
        if table is None or key not in table:
            continue
        if each.kind == "unknown":
            value = table.pop(key)
            section = section_at(Config, each.path[:-1])
            meant = nearest(str(key), keys_of(section)) if section is not None else None
            if meant is not None:
                table.setdefault(meant, value)
        elif each.kind == "value" and key in _PLAIN:
            del table[key]
    return tree


def _table_at(tree: Any, path: KeyPath) -> dict[str | int, Any] | None:
    here = tree
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here if isinstance(here, dict) else None
