"""Rotation: when a file is to be renamed, and the names of renamed files. Pure."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_STAMP = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z)(?:\.(?:gz|zst))?")
_STAMP_FORM = "%Y%m%dT%H%M%S.%fZ"
_FIRST_TS = re.compile(rb'\{"ts":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z"')
FIRST_BYTES = 64
"""The number of bytes that ``began_at`` needs."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The bounds of a file: its size in bytes, and the period that it belongs to in seconds. None: no bound."""

    size: int | None = None
    every: float | None = None

    def due(self, size: int, more: int, began_at: float | None, now: float) -> bool:
        """Whether a file of ``size`` that began then is to be renamed before ``more`` bytes are added.

        Never an empty one. Periods are counted from 1970, UTC, so that all processes see the same.
        """
        if size == 0:
            return False
        if self.size is not None and size + more > self.size:
            return True
        return self.every is not None and began_at is not None and now // self.every > began_at // self.every


def rotated_path(path: Path, now: float) -> Path:
    """Return the path of a file that is renamed now: its name and the time, so that names are in order of time."""
    return path.with_name(f"{path.name}.{datetime.fromtimestamp(now, UTC).strftime(_STAMP_FORM)}")


def rotated_at(path: Path, log: Path) -> float | None:
    """Return when a file was renamed, in seconds since 1970; None if rotation has not named it."""
    if not path.name.startswith(log.name):
        return None
    match = _STAMP.fullmatch(path.name[len(log.name) :])
    return None if match is None else datetime.strptime(match[1], _STAMP_FORM).replace(tzinfo=UTC).timestamp()


def began_at(first: bytes) -> float:
    """Return when a file began, in seconds since 1970: the time of its first record, or else now."""
    match = _FIRST_TS.match(first)
    if match is None:
        return time.time()
    return datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp()
