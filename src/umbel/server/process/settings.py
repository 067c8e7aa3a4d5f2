"""The settings of the embedded server, as an object of Hypercorn's."""

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
    """The settings of ``file`` (TOML) over our defaults, with ``bind`` over both. Paths are relative to the file.

    ``workers`` is 1 whatever the file says: one process serves here. ``warn`` is called for each key in the file that
    has no effect.

    Raises:
        ConfigError: every mistake at once, each with its line.
    """
    # Here: it loads pydantic, which a server whose settings come from elsewhere does without.
    from ...config.hypercorn_toml.settings import hypercorn_keys

    return Config.from_mapping(hypercorn_keys(file, bind=bind, warn=warn))
