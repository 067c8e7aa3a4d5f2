"""The settings of an admin side as plain values, and the place of its Unix socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"
"""The environment variable with the directories that systemd has made for the service, separated by colons."""


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """The place of the Unix socket. Several instances may use one place; ``unix_listener.py`` chooses the name."""

    directory: Path
    """The directory, absolute."""
    name: str
    """The beginning of the file name; ``.sock`` follows, after the process id if another instance has the name."""
    creates: bool = False
    """Whether the directory is created if it does not exist."""


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The settings of the section ``[admin]``, and where the Unix socket is put."""

    place: SocketPlace | None
    """Where the Unix socket is put; None: there is none."""
    bind: str | None = None
    """The TCP address (``host:port``) at which the admin side is also served; None: only at the Unix socket."""
    token: str | None = field(default=None, repr=False)
    """The secret of ``bind``."""
    metrics: str | None = None
    """The TCP address (``host:port``) at which only the metrics are served, without a secret; None: nowhere."""

    @classmethod
    def of(cls, admin: Any, logs_dir: str, *, creates: bool) -> AdminSettings:
        """The settings in the section ``[admin]``; ``creates``: a log is written to a file in ``logs_dir``."""
        return cls(socket_place(logs_dir, creates=creates), admin.bind, admin.token, admin.metrics)


def socket_place(logs_dir: str, environment: Mapping[str, str] = os.environ, *, creates: bool = False) -> SocketPlace:
    """The first directory in ``$RUNTIME_DIRECTORY``; if there is none, the directory of the logs.

    Creates nothing. ``creates``: ``unix_listener`` is to create the directory of the logs.
    """
    runtime = environment.get(RUNTIME_VARIABLE, "").partition(":")[0]
    if runtime:
        return SocketPlace(Path(runtime).absolute(), "umbel-admin")
    return SocketPlace(Path(logs_dir).absolute(), "admin", creates)
