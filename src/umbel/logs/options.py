"""The options of a log with their defaults, validated when they are created. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.http.compressors import how_to_install, is_available
from .queue import Overflow
from .records.level import SEVERITY, LevelName

Compression = Literal["gzip", "zstd", "none"]
Sync = Literal["off", "1s", "audit"]

QUEUE_BYTES_MIN = 1024 * 1024
"""Room for a batch that is being written and for one record of the largest size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The options of a log: filters, bounds, files. Sizes in bytes, times in seconds.

    Raises:
        ValueError: an option has a wrong value.
    """

    level: LevelName = "info"
    """The lowest level that is recorded; ``Log.error``, ``critical``, ``exception`` and ``audit`` record at any."""
    sample: float = 1.0
    """The share of the records below WARNING that is kept; 1.0 keeps all."""
    slow: float = 1.0
    """A record whose ``duration_ms`` reaches this many seconds is kept whatever ``sample`` says."""
    overflow: Overflow = "drop_new"
    """Which record is dropped when the queue is full: the new one, or the oldest one below WARNING."""
    max_queue_bytes: int = 8 * 2**20
    """The bound on the bytes of queued records."""
    max_queue_records: int = 65_536
    """The bound on the number of queued records."""
    flush_every: float = 0.25
    """The time that a record below WARNING may wait for its batch."""
    rotate_size: int | None = 100_000_000
    """The size that a file may have before it is renamed; None: no bound."""
    rotate_every: float | None = None
    """The length of the periods, counted from 1970 in UTC, at whose beginning the file is renamed; None: never."""
    keep: int | None = 10
    """The number of renamed files that are kept; None: all."""
    keep_bytes: int | None = None
    """The total size of the renamed files that are kept; None: without bound."""
    keep_days: float | None = None
    """The days for which a renamed file is kept; None: without bound."""
    compress: Compression = "gzip"
    """The compression of renamed files."""
    fsync: Sync = "audit"
    """When written lines are synced: ``off``: never; ``audit``: for ``Log.audit``; ``1s``: also every second."""
    ring: bool = False
    """Whether waiting records are copied to shared memory, which survives a kill of the process."""
    redact: tuple[str, ...] = ()
    """More names whose values are redacted; ``*`` matches any characters."""
    service: str | None = None
    """The field ``service.name`` of each record; None: the name of the program."""
    worker: str | None = None
    """The field ``worker`` of each record; None: no such field."""

    def __post_init__(self) -> None:
        if self.level not in SEVERITY:
            raise ValueError(f"level must be one of {', '.join(SEVERITY)}, not {self.level!r}")
        for name, words in (
            ("overflow", ("drop_new", "drop_oldest")),
            ("compress", ("gzip", "zstd", "none")),
            ("fsync", ("off", "1s", "audit")),
        ):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, not {getattr(self, name)!r}")
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
        if self.compress == "zstd" and not is_available("zstd"):
            raise ValueError(f"compress = zstd needs a library that is not installed: {how_to_install('zstd')}")
