"""Rejection of a configuration that is missing, has no route, or has lost more than half of its routes.

A file that was truncated, is half written or was replaced by an empty one is valid TOML. ``--allow-empty`` accepts it
(``UMBEL_ALLOW_EMPTY=1`` where there is no command line of ours).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import ConfigError, ConfigProblem

ALLOW_EMPTY = "UMBEL_ALLOW_EMPTY"
_YES = frozenset({"1", "true", "yes", "on"})
_HOW = f"if that is meant, say --allow-empty (or set {ALLOW_EMPTY}=1)"


def require_file(file: str) -> None:
    """Check that the configuration file exists; the error says how to begin.

    Raises:
        ConfigError: there is no such file.
    """
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = (
            'cannot be read: there is no such file; "umbel init" writes one to begin with, and "umbel demo" shows '
            "Umbel at work"
        )
        raise ConfigError([ConfigProblem(file, None, "", reason)]) from error
    except (OSError, ValueError):
        return  # the read that follows reports why it fails


def require_routes(file: str, routes: int, before: int = 0, *, need_some: bool = True) -> None:
    """Check that a configuration has not lost its routes.

    Args:
        file: its name, for the message.
        routes: how many it has.
        before: how many the configuration that it replaces has.
        need_some: whether it must have any.

    Raises:
        ConfigError: more than half of those of before are gone, or there is none and it must have some.
    """
    if need_some and not routes:
        reason = f"there is no route, so every request would be answered with 404; {_HOW}"
    elif 2 * routes < before:
        reason = f"{before - routes} of {before} routes are gone, more than half of them; {_HOW}"
    else:
        return
    raise ConfigError([ConfigProblem(file, None, "routes", reason)])


def allows_empty(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment allows a configuration without routes."""
    return environ.get(ALLOW_EMPTY, "").lower() in _YES
