"""The queue of one log: a bounded queue of numbered lines between any thread and the writer task.

Theory. ``put`` is called for every record, from any thread, also from a finalizer or a signal handler that interrupts
another call of this queue in the same thread. Hence:

* A re-entrant lock protects everything. Another thread waits for it, for microseconds: nothing under it does I/O (the
  crash buffer is memory) or calls foreign code but ``wake``, ``gap`` and ``clock``, which are the log's own.
* Re-entrance by the same thread passes the lock. ``_in_update`` detects it: the line is then put aside in
  ``_reentrant``, and queued at the end of the update that it interrupted. So no update ever sees half of another one.
* Order. A line has its number under the lock, so that numbers ascend in the file. Lines are in two deques, below
  ``WARNING`` and from ``WARNING`` on; ``_take`` merges them by number.
* Loss. A line is numbered before it is known whether there is room, so that a dropped line leaves a gap in the numbers.
  ``log.dropped`` follows with the count as soon as there is room.
* Bounds. ``_records`` and ``_bytes`` count the lines of both deques and of the batch that the writer has taken, until
  ``mark_written`` or ``mark_dropped``. The last tenth of the room is for ``WARNING`` and above.
* Waking. ``_wake_level`` is 0 until the writer has been woken since its last ``take``, 1 after an ordinary wake, 2
  after an urgent one. ``wake`` is called only when the level rises: at most twice per batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from .records.encode import finish
from .records.level import WARNING

Overflow = Literal["drop_new", "drop_oldest"]

BATCH_BYTES = 64 * 1024
"""A batch is written when it has this size, whatever its age."""

BATCH_SHARE_MAX = 0.25
"""The share of a full queue that is at most one batch. A busy loop leaves the writer's thread little time, so that a
full queue is written in few steps."""

_SEQ_BYTES_MAX = 24
"""The bytes that a number and the end add to a line, at most."""

RESERVED_SHARE = 0.1
"""The share of the room that is reserved for ``WARNING`` and above."""


class CrashBuffer(Protocol):
    """A copy of the waiting lines that survives the death of this process: ``ring.py``."""

    def append(self, line: bytes) -> int | None:
        """Keep a line; return the mark that releases it and all before it. None if there is no room."""

    def release(self, mark: int) -> None:
        """Release everything up to the mark, which is written. Lines that are never written are not released."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot of one queue's counters."""

    queued: int
    """Records waiting, those of the batch that is being written included."""
    queued_bytes: int
    written: int
    """Records in the file, this log's own (``log.dropped``, ``log.closed``) included."""
    dropped: int


class Batch(NamedTuple):
    """Whole lines that go to the file together."""

    data: bytes
    records: int
    last: int
    """The number of the last line in it."""
    mark: int


_Entry = tuple[int, bytes, int]
"""A waiting line: number, bytes, mark. A plain tuple, since one is made for each record."""


class Queue:
    """A bounded queue of numbered lines.

    * Below ``WARNING``, a line that finds no room is dropped (``drop_new``), or takes the place of the oldest lines
      below ``WARNING`` (``drop_oldest``). The last tenth of the room is not for them.
    * From ``WARNING`` on, a line that finds no room takes the place of the oldest ones, those below ``WARNING`` first.
    * Every record has the next number, a dropped one too, so that a reader finds the gap. As soon as there is room
      again, a line made by ``gap(count, since)`` says how many are missing.

    All methods may be called from any thread, and ``put`` also from a finalizer or a signal handler that interrupts
    one of them. ``wake(urgent)`` is called when there is something to write: not again until the next ``take``, unless
    it becomes urgent.
    """

    def __init__(
        self,
        gap: Callable[[int, int], bytes],
        wake: Callable[[bool], None],
        clock: Callable[[], int],
        *,
        max_records: int,
        max_bytes: int,
        overflow: Overflow = "drop_new",
        crash_buffer: CrashBuffer | None = None,
    ) -> None:
        self._gap = gap
        self._wake = wake
        self._clock = clock
        self._records_max = max_records
        self._bytes_max = max_bytes
        reserved_records, reserved_bytes = int(max_records * RESERVED_SHARE), int(max_bytes * RESERVED_SHARE)
        self._ordinary_records_max = max_records - reserved_records
        self._ordinary_bytes_max = max_bytes - reserved_bytes
        self._batch_bytes_max = max(BATCH_BYTES, int(max_bytes * BATCH_SHARE_MAX))
        self._drops_oldest = overflow == "drop_oldest"
        self._crash_buffer = crash_buffer
        self._ordinary: deque[_Entry] = deque()
        self._severe: deque[_Entry] = deque()
        self._lock = threading.RLock()
        self._in_update = False
        self._reentrant: deque[tuple[bytes, int]] = deque()
        self._watched: set[int] = set()
        self._seq = 0
        self._settled = 0
        self._records = 0
        self._bytes = 0
        self._wake_level = 0
        self._written = 0
        self._dropped = 0
        self._unreported = 0
        self._unreported_since = 0

    def put(self, line: bytes, severity: int) -> int:
        """Number and queue a line, or drop and count it. Return its number; 0 if it is dropped or re-entrant."""
        # One long function, because it runs for every record, and a call costs as much as a third of it.
        with self._lock:
            if self._in_update:
                # A finalizer or a signal handler has interrupted an update by this thread: the line follows later.
                self._reentrant.append((line, severity))
                return 0
            self._in_update = True
            try:
                if self._unreported:
                    self._report_gap()
                self._seq = seq = self._seq + 1
                line += b"%d}\n" % seq
                size = self._bytes + len(line)
                mark: int | None = 0
                if severity >= WARNING:
                    room = self._records < self._records_max and size <= self._bytes_max
                else:
                    room = self._records < self._ordinary_records_max and size <= self._ordinary_bytes_max
                if not room:
                    room = self._make_room(len(line), severity >= WARNING)
                    size = self._bytes + len(line)
                if room and self._crash_buffer is not None:
                    mark = self._crash_buffer.append(line)
                if not room or mark is None:
                    self._drop()
                    return 0
                (self._severe if severity >= WARNING else self._ordinary).append((seq, line, mark))
                self._records += 1
                self._bytes = size
                if self._wake_level == 0 or (self._wake_level == 1 and (severity >= WARNING or size >= BATCH_BYTES)):
                    self._wake_writer(severity)
                return seq
            finally:
                self._in_update = False
                if self._reentrant:
                    self._put_reentrant()

    def put_all(self, lines: Sequence[bytes]) -> None:
        """Queue several lines below ``WARNING``, in one update where there is room for all of them."""
        with self._lock:
            size = self._bytes + sum(map(len, lines)) + _SEQ_BYTES_MAX * len(lines)
            room = self._records + len(lines) <= self._ordinary_records_max and size <= self._ordinary_bytes_max
            if not room or self._in_update or self._unreported or self._crash_buffer is not None:
                for line in lines:
                    self.put(line, 0)
                return
            self._in_update = True
            try:
                seq, size, ordinary = self._seq, self._bytes, self._ordinary
                for line in lines:
                    seq += 1
                    line += b"%d}\n" % seq
                    size += len(line)
                    ordinary.append((seq, line, 0))
                self._seq, self._bytes = seq, size
                self._records += len(lines)
                if self._wake_level < 2:
                    self._wake_writer(0)
            finally:
                self._in_update = False
                if self._reentrant:
                    self._put_reentrant()

    def put_watched(self, line: bytes, severity: int) -> int:
        """Queue a line as ``put`` does, and watch it until ``unwatch``: ``is_lost`` says whether it was dropped."""
        with self._lock:
            seq = self.put(line, severity)
            if seq:
                self._watched.add(seq)
            return seq

    def is_lost(self, seq: int) -> bool:
        """Whether a watched line has been dropped."""
        return seq not in self._watched

    def unwatch(self, seq: int) -> None:
        """Stop watching a line."""
        self._watched.discard(seq)

    def put_last(self, line: Callable[[int, int], bytes]) -> None:
        """Queue the line that ``line(written, dropped)`` makes, itself counted as written; drop all later ones."""
        with self._lock:
            with self._exclusive():
                self._report_gap()
            self.put(line(self._written + self._records + 1, self._dropped), WARNING)
            self._records_max = self._ordinary_records_max = 0

    def take(self) -> Batch | None:
        """Take the next batch; None if no line waits. It counts as queued until it is marked as written or dropped."""
        with self._exclusive():
            self._wake_level = 0
            return self._take()

    def mark_written(self, batch: Batch) -> None:
        """Count a batch as written, and release its room."""
        with self._exclusive():
            self._written += batch.records
            self._release(batch)
            if self._crash_buffer is not None:
                self._crash_buffer.release(batch.mark)
            self._report_gap()

    def mark_dropped(self, batch: Batch) -> None:
        """Count a batch as dropped, and release its room."""
        with self._exclusive():
            self._drop_batch(batch)

    def close(self) -> None:
        """Drop the lines that wait, and all later ones."""
        with self._exclusive():
            self._records_max = self._ordinary_records_max = 0
            while (batch := self._take()) is not None:
                self._drop_batch(batch)

    @property
    def last(self) -> int:
        """The number of the latest record."""
        return self._seq

    @property
    def settled(self) -> int:
        """The number up to which every record is written or dropped."""
        with self._lock:
            return self._settled if self._records else self._seq

    @property
    def waiting(self) -> bool:
        """Whether lines wait for ``take``."""
        return bool(self._ordinary or self._severe)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are being written."""
        return self._bytes

    def statistics(self) -> QueueStatistics:
        """A snapshot of the counters."""
        with self._lock:
            return QueueStatistics(self._records, self._bytes, self._written, self._dropped)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            self._in_update = True
            try:
                yield
            finally:
                self._in_update = False
                self._put_reentrant()

    def _put_reentrant(self) -> None:
        while self._reentrant:
            self.put(*self._reentrant.popleft())

    def _wake_writer(self, severity: int) -> None:
        urgency = 2 if severity >= WARNING or self._bytes >= BATCH_BYTES else 1
        if urgency > self._wake_level:
            self._wake_level = urgency
            self._wake(urgency == 2)

    def _take(self) -> Batch | None:
        ordinary, severe = self._ordinary, self._severe
        lines: list[bytes] = []
        size = last = mark = 0
        while ordinary or severe:
            source = severe if not ordinary or (severe and severe[0][0] < ordinary[0][0]) else ordinary
            line = source[0][1]
            if lines and size + len(line) > self._batch_bytes_max:
                break
            last, _, mark = source.popleft()
            lines.append(line)
            size += len(line)
        return Batch(b"".join(lines), len(lines), last, mark) if lines else None

    def _make_room(self, size: int, severe: bool) -> bool:
        """Drop the oldest lines for one of ``size`` bytes; return whether there is room now."""
        sources, records_max, bytes_max = [self._ordinary], self._ordinary_records_max, self._ordinary_bytes_max
        if severe:
            sources, records_max, bytes_max = [self._ordinary, self._severe], self._records_max, self._bytes_max
        elif not self._drops_oldest:
            return False
        if not self._records_max:
            return False
        for source in sources:
            while source:
                seq, line, _ = source.popleft()
                self._records -= 1
                self._bytes -= len(line)
                self._watched.discard(seq)
                self._drop()
                if self._records < records_max and self._bytes + size <= bytes_max:
                    return True
        return False

    def _drop(self) -> None:
        self._dropped += 1
        self._unreported += 1
        self._unreported_since = self._unreported_since or self._clock()

    def _report_gap(self) -> None:
        """Queue ``log.dropped`` if lines have been dropped and the room for ordinary lines has place for it."""
        if not self._unreported or self._records >= self._ordinary_records_max:
            return
        line = finish(self._gap(self._unreported, self._unreported_since), self._seq + 1)
        if self._bytes + len(line) > self._ordinary_bytes_max:
            return
        mark = 0
        if self._crash_buffer is not None:
            kept = self._crash_buffer.append(line)
            if kept is None:
                return
            mark = kept
        self._seq += 1
        self._severe.append((self._seq, line, mark))
        self._records += 1
        self._bytes += len(line)
        self._unreported, self._unreported_since = 0, 0
        if self._wake_level == 0:
            self._wake_writer(0)

    def _drop_batch(self, batch: Batch) -> None:
        self._dropped += batch.records
        self._watched = {seq for seq in self._watched if seq > batch.last}
        self._release(batch)

    def _release(self, batch: Batch) -> None:
        self._records -= batch.records
        self._bytes -= len(batch.data)
        self._settled = batch.last
