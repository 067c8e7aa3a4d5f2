"""Rejection of a configuration that is missing, has no route, or has lost more than half of its routes.

A file that was truncated, is half written or was replaced by an empty one may be valid TOML. The option
``--allow-empty`` accepts such a configuration, and so does the environment variable ``UMBEL_ALLOW_EMPTY=1``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import ConfigError, ConfigProblem

ALLOW_EMPTY = "UMBEL_ALLOW_EMPTY"
_YES = frozenset({"1", "true", "yes", "on"})
_HOW = f"if that is meant, use --allow-empty (or set {ALLOW_EMPTY}=1)"


def require_file(file: str) -> None:
    """Check that the configuration file exists.

    Raises:
        ConfigError: the file does not exist. Its message says how to make one.
    """
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = (
            'cannot be read: there is no such file; "umbel init" writes a first one, and "umbel demo" runs an example'
        )
        raise ConfigError([ConfigProblem(file, None, "", reason)]) from error
    except (OSError, ValueError):
        return  # Reading the file will report the reason.


def require_routes(file: str, routes: int, before: int = 0, *, need_some: bool = True) -> None:
    """Check that a configuration has not lost its routes.

    Args:
        file: the name of its file, for the message.
        routes: the number of its routes.
        before: the number of routes in the configuration that it replaces; 0: it replaces none.
        need_some: whether it must have at least one route.

    Raises:
        ConfigError: it has lost more than half of its routes, or has none and must have some.
    """
    if need_some and not routes:
        reason = f"there is no route, so every request would get 404; {_HOW}"
    elif 2 * routes < before:
        reason = f"{before - routes} of {before} routes are gone, more than half of them; {_HOW}"
    else:
        return
    raise ConfigError([ConfigProblem(file, None, "routes", reason)])


def allows_empty(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment allows a configuration without routes."""
    return environ.get(ALLOW_EMPTY, "").lower() in _YES
