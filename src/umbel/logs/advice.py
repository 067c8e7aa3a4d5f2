"""Warnings of ``umbel check`` about ``[logs]``: values that are valid and do not do what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.regular_file import NOT_WRITABLE_REMEDY, why_not_writable
from .recorder import STREAMS, path_of

if TYPE_CHECKING:
    from ..config.schema.sections import Config, KeyPath

FOR_FILES = ("rotate_size", "rotate_every", "keep", "keep_bytes", "keep_days", "compress", "fsync", "ring")
"""Keys of ``[logs]`` that are about files alone."""


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Keys that are about files where every stream goes to stdout, and files that could not be written.

    The files are judged for the user that runs the check.
    """
    logs = config.logs
    files = {name: path for name in STREAMS if (path := path_of(logs, name)) is not None}
    if not files:
        for key in FOR_FILES:
            if key in logs.model_fields_set:
                yield ("logs", key), "has no effect: it is about files, and every stream goes to stdout"
    reasons = dict.fromkeys(filter(None, map(why_not_writable, files.values())))
    for reason in reasons:
        yield ("logs", "dir"), f"the records could not be written: {reason}; {NOT_WRITABLE_REMEDY}"
    control = config.supervisor.control
    if control is not None and (reason := why_not_writable(f"{control}.new")):
        yield ("supervisor", "control"), f"the socket could not be made: {reason}; {NOT_WRITABLE_REMEDY}"
