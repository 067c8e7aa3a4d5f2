"""Rotation: when a log file must be renamed, and the names of renamed files. Pure."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..records.combined import time_of

_STAMP = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z)(?:\.(?:gz|zst))?")
_STAMP_FORM = "%Y%m%dT%H%M%S.%fZ"
_FIRST_TS = re.compile(rb'\{"ts":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z"')
FIRST_BYTES = 512
"""The number of bytes at the beginning of a file that ``began_at`` needs."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The bounds of a file: ``size`` in bytes, and ``every``, the length of its period in seconds. None: no bound."""

    size: int | None = None
    every: float | None = None

    def due(self, size: int, more: int, began_at: float | None, now: float) -> bool:
        """Whether a file of ``size`` bytes must be renamed before ``more`` bytes are added; never if it is empty.

        ``began_at`` and ``now`` are seconds since 1970. Periods are multiples of ``every`` since 1970, so that all
        processes agree on them.
        """
        if size == 0:
            return False
        if self.size is not None and size + more > self.size:
            return True
        return self.every is not None and began_at is not None and now // self.every > began_at // self.every


def rotated_path(path: Path, now: float) -> Path:
    """Return the new path of a file that is renamed now: its name and the time (UTC), so that names sort by time."""
    return path.with_name(f"{path.name}.{datetime.fromtimestamp(now, UTC).strftime(_STAMP_FORM)}")


def rotated_at(path: Path, log: Path) -> float | None:
    """Return when rotation renamed a file, in seconds since 1970; None if the name is not one of rotation's."""
    if not path.name.startswith(log.name):
        return None
    match = _STAMP.fullmatch(path.name[len(log.name) :])
    return None if match is None else datetime.strptime(match[1], _STAMP_FORM).replace(tzinfo=UTC).timestamp()


def began_at(first: bytes) -> float:
    """Return the time of a file's first record, in seconds since 1970; the present time if it cannot be read.

    ``first`` is the beginning of the file: at least ``FIRST_BYTES``, or all of a shorter file.
    """
    match = _FIRST_TS.match(first)
    ts = match[1].decode() if match is not None else (time_of(first) or "").rstrip("Z")
    return datetime.fromisoformat(ts).replace(tzinfo=UTC).timestamp() if ts else time.time()
