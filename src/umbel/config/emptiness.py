"""Configurations that are valid and surely not meant: without any route, or without most of those of before.

A file that was truncated, is half written or was replaced by an empty one is valid TOML. Whoever means it says
``--allow-empty`` (``UMBEL_ALLOW_EMPTY=1`` where there is no command line of ours).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import ConfigError, ConfigProblem

ALLOW_EMPTY = "UMBEL_ALLOW_EMPTY"
_YES = frozenset({"1", "true", "yes", "on"})
_HOW = f"if that is meant, say --allow-empty (or set {ALLOW_EMPTY}=1)"


def require_routes(file: str, routes: int, before: int = 0, *, need_some: bool = True) -> None:
    """Refuse a configuration that has lost its routes: more than half of ``before``, or with ``need_some`` all.

    Raises:
        ConfigError: it has.
    """
    if need_some and not routes:
        reason = f"there is no route, so every request would be answered with 404; {_HOW}"
    elif 2 * routes < before:
        reason = f"{before - routes} of {before} routes are gone, more than half of them; {_HOW}"
    else:
        return
    raise ConfigError([ConfigProblem(file, None, "routes", reason)])


def allows_empty(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says that a configuration without routes is meant."""
    return environ.get(ALLOW_EMPTY, "").lower() in _YES
