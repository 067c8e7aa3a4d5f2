"""Configurations for tests: written to a directory and loaded, with their mistakes as lines of text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from umbel.config.loading.load import load
from umbel.config.schema.sections import Config
from umbel.core.errors import ConfigError
from umbel.gateway.checks import CHECKS

UPSTREAM = '[upstreams.u]\nurls = ["http://h"]\n'
ROUTE = '[[routes]]\npath = "/r"\n'
CALL = 'calls.c = { upstream = "u", path = "/" }\n'
WRITTEN_AT = 1_700_000_000
"""The modification time of written files, long ago: the loader reads a recently changed file twice, with a pause."""
GOOD = UPSTREAM + ROUTE + CALL


def write(directory: Path, text: str, files: Mapping[str, str | bytes] | None = None) -> Path:
    """Write ``umbel.toml`` and other files, given by name, into ``directory``; return the path of ``umbel.toml``."""
    for name, content in {"umbel.toml": text, **(files or {})}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
    return directory / "umbel.toml"


def loaded(
    directory: Path,
    text: str,
    files: Mapping[str, str | bytes] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Load ``text`` as the file ``umbel.toml`` in ``directory``, which is the working directory meanwhile.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    write(directory, text, files)
    before = Path.cwd()
    os.chdir(directory)
    try:
        return load("umbel.toml", checks=CHECKS, environ=environ or {})
    finally:
        os.chdir(before)


def mistakes(
    directory: Path,
    text: str,
    files: Mapping[str, str | bytes] | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the lines of the ConfigError that ``loaded`` raises; empty if it raises none."""
    try:
        loaded(directory, text, files, environ)
    except ConfigError as error:
        return str(error).split("\n")
    return []
