"""Hypercorn's settings for the ways to start that are ours: a file, options that win over it, and our defaults.

Used by ``umbel serve``, ``umbel demo`` and ``app.run()``. What Hypercorn has a key for is set there alone; this reads
its file and adds nothing of its own to it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypercorn.config import Config

from ..errors import ConfigError, ConfigProblem

DEFAULTS: Mapping[str, Any] = {
    # Never tell clients what serves them; the access log is ours; a request in flight has time to end.
    "include_server_header": False,
    "accesslog": None,
    "loglevel": "WARNING",
    "graceful_timeout": 20.0,
    "worker_class": "trio",
}

_PATHS = ("certfile", "keyfile", "ca_certs", "pid_path")


def hypercorn_config(file: str | os.PathLike[str] | None = None, *, bind: Sequence[str] = ()) -> Config:
    """The settings of ``file`` (TOML) over our defaults, with ``bind`` over both. Paths are relative to the file.

    ``workers`` is 1 whatever the file says: one process serves here.

    Raises:
        ConfigError: the file cannot be read or is no TOML, or an address to bind is none.
    """
    settings = {**DEFAULTS, **(_read(Path(file)) if file is not None else {})}
    if bind:
        settings["bind"] = list(bind)
    _check_addresses(settings.get("bind"), "--bind" if bind else f"{file}: bind")
    settings["workers"] = 1
    return Config.from_mapping(settings)


def _check_addresses(bind: object, at: str) -> None:
    """Hypercorn takes an empty address for every address there is, and fails late on a port out of range."""
    for address in [bind] if isinstance(bind, str) else bind if isinstance(bind, list | tuple) else ():
        text = str(address)
        host, colon, port = text.rpartition(":")
        if text.startswith("unix:") and len(text) > len("unix:"):
            continue
        if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65535):
            reason = f'"{text}" is not an address; write HOST:PORT (a port is at most 65535) or unix:/path'
            raise ConfigError([ConfigProblem(at, None, "", reason)])


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([ConfigProblem(str(file), None, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([ConfigProblem(str(file), None, "", "is not UTF-8")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([ConfigProblem(str(file), None, "", f"is not TOML: {error}")]) from error
    for key in _PATHS:
        if isinstance(settings.get(key), str):
            settings[key] = str(file.parent / settings[key])
    return settings
