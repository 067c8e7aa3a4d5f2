"""The settings of the embedded server (``hypercorn.toml``) as Hypercorn's ``Config``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from hypercorn.config import Config

from ...core.errors import ConfigProblem


def hypercorn_config(
    file: str | os.PathLike[str] | None = None,
    *,
    bind: Sequence[str] = (),
    warn: Callable[[ConfigProblem], object] | None = None,
) -> Config:
    """The settings in ``file`` (TOML), with Umbel's defaults for missing keys. Without ``file``, the defaults.

    A ``bind`` that is not empty replaces the key ``bind`` of the file. Paths in the file are relative to its directory.
    ``workers`` is always 1, because the embedded server is one process. ``warn`` is called for each key in the file
    that has no effect.

    Raises:
        ConfigError: the file cannot be read, or has mistakes. The error carries all of them, each with its line.
    """
    # Imported here: it loads pydantic, which a server with other settings does not need.
    from ...config.hypercorn_toml.settings import hypercorn_keys

    return Config.from_mapping(hypercorn_keys(file, bind=bind, warn=warn))
