"""The options of a log, with their defaults, checked when they are made. Pure data.

The gateway makes them from ``[logs]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from .queue import Overflow
from .records.level import SEVERITY, LevelName

Compression = Literal["gzip", "zstd", "none"]
Sync = Literal["off", "1s", "audit"]

QUEUE_BYTES_MIN = 1024 * 1024
"""Room for a batch that is being written and for the longest record behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The options of a log: filters, bounds, files. Sizes in bytes, times in seconds.

    Raises:
        ValueError: a value that cannot be used, in one sentence.
    """

    level: LevelName = "info"
    """Records below it are not made."""
    sample: float = 1.0
    """The share of the records below WARNING that is kept; slow ones (``slow``) always are."""
    slow: float = 1.0
    """A record whose ``duration_ms`` reaches this many seconds is never sampled away."""
    overflow: Overflow = "drop_new"
    """Which record is dropped when the queue is full: the new one, or the oldest one below WARNING."""
    max_queue_bytes: int = 8 * 2**20
    max_queue_records: int = 65_536
    flush_every: float = 0.25
    """How long a record may wait for its batch."""
    rotate_size: int | None = 100_000_000
    """The file is renamed before it would grow over this; None: never."""
    rotate_every: float | None = None
    """The file is renamed when a new period begins, counted from 1970 in UTC; None: never."""
    keep: int | None = 10
    """How many renamed files stay; None: all."""
    keep_bytes: int | None = None
    """How many bytes of renamed files stay."""
    keep_days: float | None = None
    """How long a renamed file stays."""
    compress: Compression = "gzip"
    """How a renamed file is compressed."""
    fsync: Sync = "audit"
    """When the disk must confirm: never, every second, or for ``audit`` alone."""
    ring: bool = False
    """Whether records that wait are kept in shared memory, which survives a killed process."""
    redact: tuple[str, ...] = ()
    """More names whose values are hidden; ``*`` stands for anything."""
    service: str | None = None
    """``service.name`` of each record; None: the name of the program."""
    worker: str | None = None
    """``worker`` of each record."""

    def __post_init__(self) -> None:
        if self.level not in SEVERITY:
            raise ValueError(f"{self.level!r} is not a level; the levels are {', '.join(SEVERITY)}")
        for name, words in (
            ("overflow", ("drop_new", "drop_oldest")),
            ("compress", ("gzip", "zstd", "none")),
            ("fsync", ("off", "1s", "audit")),
        ):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}")
        if not 0 < self.sample <= 1:
            raise ValueError("sample must be above 0 and at most 1")
        if self.max_queue_bytes < QUEUE_BYTES_MIN:
            raise ValueError(f"max_queue_bytes must be at least {QUEUE_BYTES_MIN}")
        for name in ("max_queue_records", "flush_every", "slow", "rotate_size", "rotate_every", "keep_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.keep is not None and self.keep < 0:
            raise ValueError("keep must be at least 0")
        if self.compress == "zstd" and find_spec("zstandard") is None:
            raise ValueError("compress = zstd needs the package zstandard: pip install 'umbel[zstd]'")
