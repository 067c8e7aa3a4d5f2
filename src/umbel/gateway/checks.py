"""Checks of a configuration beside its schema.

A configuration that fails one of ``CHECKS`` cannot be served. ``WARNINGS`` are reported by ``umbel check`` for a
configuration that can be served. The checks open no connection.
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
"""Keys of ``[logs]`` that apply to files only."""


def _warn_of_logs(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of log file keys without a log file, and of log files that the current user could not write."""
    logs = config.logs
    files = [path for name in STREAMS if (path := path_of(logs, name)) is not None]
    if not files:
        for key in _LOG_FILE_KEYS:
            if key in logs.model_fields_set:
                yield ("logs", key), "has no effect: it applies to files, and every stream goes to stdout"
    for reason in dict.fromkeys(filter(None, map(why_not_writable, files))):
        yield ("logs", "dir"), f"the records could not be written: {reason}; {NOT_WRITABLE_REMEDY}"


CHECKS: tuple[Check, ...] = (compiler.check, from_config.check)
WARNINGS: tuple[Check, ...] = (
    contradictions.check,
    warnings.warn,
    from_config.warn,
    _warn_of_logs,
)
"""Checks whose results are only reported."""
