"""Configurations for tests: written to a directory, loaded, and their mistakes as people see them."""

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
"""Long ago: a file that was changed just now is read twice, a moment apart."""
GOOD = UPSTREAM + ROUTE + CALL


def write(directory: Path, text: str, files: Mapping[str, str | bytes] | None = None) -> Path:
    """Write ``umbel.toml``, and other files by their names, into ``directory``."""
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
    """The configuration of ``text``, whose file messages call ``umbel.toml``."""
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
    """What ``loaded`` says is wrong, line by line; empty if nothing is."""
    try:
        loaded(directory, text, files, environ)
    except ConfigError as error:
        return str(error).split("\n")
    return []
