"""The options that several commands share, and the loading of the configuration that they name.

The module imports only click until a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..config.loading.load import LoadedConfig
    from ..config.schema.sections import Config

config_option = click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    default="umbel.toml",
    envvar="UMBEL_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


allow_empty_option = click.option(
    "--allow-empty",
    is_flag=True,
    envvar="UMBEL_ALLOW_EMPTY",
    show_envvar=True,
    help="Accept a configuration without routes, and a reload that removes more than half of them.",
)


def load_config(file: str) -> Config:
    """Load the configuration in ``file`` with all of its checks.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from ..config.loading.empty_config import require_file
    from ..config.loading.load import load
    from ..gateway.checks import CHECKS

    require_file(file)
    return load(file, checks=CHECKS)


def load_with_warnings(file: str) -> LoadedConfig:
    """Load the configuration in ``file`` with all checks, and with the warnings about it and its hypercorn.toml.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from functools import partial

    from ..auth import checks as auth_checks
    from ..config.loading import contradictions
    from ..config.loading.file_reader import UnreadableError, read_settled
    from ..config.loading.load import load_for_display
    from ..gateway.checks import CHECKS, WARNINGS

    name = hypercorn_beside(file)
    try:
        beside = {} if name is None else {contradictions.HYPERCORN: read_settled(Path(name), name)}
    except UnreadableError:
        beside = {}  # ``hypercorn_keys`` reports this mistake.
    served = {key: value for source in beside.values() for key, value in source.data.items() if _is_number(value)}
    of_both = (contradictions.check, auth_checks.warn)
    checks = [partial(check, served=served) if check in of_both else check for check in WARNINGS]
    return load_for_display(file, checks=CHECKS, warnings=checks, beside=beside)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def hypercorn_beside(file: str) -> str | None:
    """Return the path of the hypercorn.toml beside the configuration; None if there is none."""
    settings = Path(file).parent / "hypercorn.toml"  # with_name() fails for "." and "/"
    return str(settings) if settings.exists() else None
