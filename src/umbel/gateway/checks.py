"""What a configuration must meet beside its schema: ``CHECKS`` before it is served, ``WARNINGS`` for ``umbel check``.

``CHECKS`` are handed to ``config.load.load`` by everything that loads a configuration to serve or to explain it.
Nothing here starts a task or opens a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..composition.plan import compiler, warnings
from ..config.loading import contradictions
from ..config.loading.load import Check
from ..core.regular_file import NOT_WRITABLE_REMEDY, why_not_writable
from ..logs.recorder import STREAMS, path_of
from ..upstream import from_config

if TYPE_CHECKING:
    from ..config.schema.sections import Config, KeyPath

_LOG_FILE_KEYS = ("rotate_size", "rotate_every", "keep", "keep_bytes", "keep_days", "compress", "fsync", "ring")
"""Keys of ``[logs]`` that are about files alone."""


def _warn_of_logs(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Keys that are about files where every stream goes to stdout, and files that could not be written.

    The files are judged for the user that runs the check.
    """
    logs = config.logs
    files = [path for name in STREAMS if (path := path_of(logs, name)) is not None]
    if not files:
        for key in _LOG_FILE_KEYS:
            if key in logs.model_fields_set:
                yield ("logs", key), "has no effect: it is about files, and every stream goes to stdout"
    for reason in dict.fromkeys(filter(None, map(why_not_writable, files))):
        yield ("logs", "dir"), f"the records could not be written: {reason}; {NOT_WRITABLE_REMEDY}"


def _warn_of_control_socket(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """A control socket that the user that runs the check could not make."""
    control = config.supervisor.control
    if control is not None and (reason := why_not_writable(f"{control}.new")):
        yield ("supervisor", "control"), f"the socket could not be made: {reason}; {NOT_WRITABLE_REMEDY}"


CHECKS: tuple[Check, ...] = (compiler.check, from_config.check)
WARNINGS: tuple[Check, ...] = (
    contradictions.check,
    warnings.warn,
    from_config.warn,
    _warn_of_logs,
    _warn_of_control_socket,
)
"""What ``umbel check`` says about a configuration that can be served."""
