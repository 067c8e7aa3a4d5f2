"""One stream's queue of encoded lines: bounded, and honest about what it had to drop.

Filled by the recorder, emptied by the writer. Pure: no I/O, no trio; the clock is given to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A snapshot of one stream's counters."""

    queued: int
    """Records waiting, those of the batch that is being written included."""
    queued_bytes: int
    written: int
    dropped: int
    errors: int
    """Failed tries to write since the start."""
    last_error: str | None
    """What the last try failed with; None while writing works."""


class Batch(NamedTuple):
    """Whole lines that go to the sink together."""

    data: bytes
    records: int


class Stream:
    """A bounded queue of lines in order.

    A line that finds no room is dropped and counted. As soon as there is room again, a line made by
    ``gap(count, since)`` stands in the place of the lost ones, before any later line: a reader sees where the hole is
    and how wide.
    """

    def __init__(
        self, gap: Callable[[int, datetime], bytes], now: Callable[[], datetime], *, max_records: int, max_bytes: int
    ) -> None:
        self._gap = gap
        self._now = now
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._queued = 0
        self._queued_bytes = 0
        self._written = 0
        self._dropped = 0
        self._unreported = 0
        self._unreported_since: datetime | None = None
        self._errors = 0
        self._last_error: str | None = None

    def put(self, line: bytes) -> bool:
        """Queue a line, or drop and count it; says whether it was queued."""
        if (self._unreported and not self.report_gap()) or not self._append(line):
            self._dropped += 1
            self._unreported += 1
            self._unreported_since = self._unreported_since or self._now()
            return False
        return True

    def report_gap(self) -> bool:
        """Queue the line about what was dropped; False if nothing was, or if there is no room even for that."""
        if self._unreported_since is None or self._is_full:
            return False
        if not self._append(self._gap(self._unreported, self._unreported_since)):
            return False
        self._unreported, self._unreported_since = 0, None
        return True

    def take(self, max_bytes: int) -> Batch:
        """The next batch: at least one line if any waits, else not more than ``max_bytes`` of them.

        It fills the queue until ``wrote`` or ``gave_up`` says what became of it.
        """
        lines: list[bytes] = []
        size = 0
        while self._lines and (not lines or size + len(self._lines[0]) <= max_bytes):
            line = self._lines.popleft()
            lines.append(line)
            size += len(line)
        return Batch(b"".join(lines), len(lines))

    def wrote(self, batch: Batch) -> None:
        """The batch is in the file."""
        self._written += batch.records
        self._last_error = None
        self._release(batch)

    def gave_up(self, batch: Batch) -> None:
        """The batch will not be written any more."""
        self._dropped += batch.records
        self._release(batch)

    def failed(self, error: OSError) -> None:
        """A try to write failed; the batch will be tried again."""
        self._errors += 1
        self._last_error = error.strerror or type(error).__name__

    def close(self) -> None:
        """Give up what waits, and drop whatever is still put."""
        self._max_records = 0
        self.gave_up(self.take(self._queued_bytes))

    def __len__(self) -> int:
        """Lines that wait to be taken."""
        return len(self._lines)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are being written."""
        return self._queued_bytes

    def statistics(self) -> StreamStatistics:
        """A snapshot of the counters."""
        return StreamStatistics(
            queued=self._queued,
            queued_bytes=self._queued_bytes,
            written=self._written,
            dropped=self._dropped,
            errors=self._errors,
            last_error=self._last_error,
        )

    @property
    def _is_full(self) -> bool:
        return self._queued >= self._max_records

    def _append(self, line: bytes) -> bool:
        if self._is_full or self._queued_bytes + len(line) > self._max_bytes:
            return False
        self._lines.append(line)
        self._queued += 1
        self._queued_bytes += len(line)
        return True

    def _release(self, batch: Batch) -> None:
        self._queued -= batch.records
        self._queued_bytes -= len(batch.data)
