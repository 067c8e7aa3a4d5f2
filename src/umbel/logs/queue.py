"""The queue of one log: a bounded queue of numbered lines between any number of threads and one writer task.

Theory
======

The problem. Any thread may record at any time, and must never wait for a disk. So ``put`` only moves a line into
memory, memory is bounded, and a line that finds no room is dropped. A reader of the log must be able to see every loss.
Lines that are not numbered show no hole; for such a log ``gap`` reports the loss elsewhere.

The life of a line. ``put`` gives it the next sequence number. From then on the line is in exactly one of four states::

    put --> waiting --take--> taken --mark_written--> written
     |         |                |
     +---------+----------------+--> dropped       (no room; displaced by a newer line; mark_dropped or close)

Invariants, which hold whenever no update is in progress:

1.  ``_seq == _written + _dropped + _records``. ``_records`` and ``_bytes`` count the waiting and the taken lines, so
    that a batch that a hanging disk does not take still occupies its room.
2.  Waiting lines are in two deques: ``_ordinary`` (below ``WARNING``) and ``_severe`` (from ``WARNING`` on). The
    numbers ascend in each, because a line gets its number and its place in one update. ``_take`` merges the deques by
    number, so that the numbers ascend in the file too. The writer holds at most one batch; therefore every line up
    to ``_settled``, the last number of the latest batch that was marked, is written or dropped.
3.  Ordinary lines fill at most nine tenths of the room; the last tenth is reserved for ``WARNING`` and above. (Of fewer
    than ten lines none is reserved.)

Overflow. An ordinary line without room is dropped itself (``drop_new``) or displaces the oldest ordinary lines
(``drop_oldest``). A severe line displaces the oldest ordinary lines, then the oldest severe ones. Taken lines are never
displaced, because the sink may have written a part of them. No line is displaced if the new one finds no room
nevertheless, also not in the crash buffer: then only the new one is dropped.

Reporting of losses. A dropped line keeps its number, so a reader finds a hole in the numbers. In addition
``log.dropped`` states the count since the last report. It is queued, with a number of its own, by the next ``put``,
``mark_written`` or ``put_last`` that finds ordinary room, and room in the crash buffer. A later severe line may
displace it like any other line; the hole in the numbers and the total in ``log.closed`` remain.

Concurrency. ``_lock`` is re-entrant and serializes updates. A thread waits for it for microseconds: under it the queue
does no I/O and calls only ``gap``, ``wake``, ``clock``, the crash buffer (memory) and the argument of ``put_last``,
none of which may block. A finalizer or a signal handler can interrupt an update in the same thread and call
``put``; the re-entrant lock does not stop it. ``_in_update`` detects that case: the line is kept in ``_reentrant`` and
is queued at the end of the interrupted update. Hence no update ever sees another one half done.

Waking the writer. ``_wake_level`` is 0 after ``take``, 1 after an ordinary wake and 2 after an urgent one (a severe
line, or enough bytes for a batch). ``wake`` is called only when the level rises, thus at most twice per batch. A line
that is queued between ``take`` and the end of the write finds level 0 and wakes the writer again, so no new line is
missed. Lines that did not fit into the batch wake nobody; the writer looks at ``waiting`` after each step.

Who may call what. ``put``, ``put_all``, ``put_watched``, ``is_lost``, ``unwatch``, ``statistics`` and the properties:
any thread. ``take``, ``mark_written``, ``mark_dropped``, ``put_last`` and ``close``: the writer's task alone, and never
from within an update. No method awaits, so no cancel can interrupt one.
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

BATCH_BYTES = 256 * 1024
"""The size of the queued lines from which on they are written at once, whatever their age; at most ``BATCH_SHARE_MAX``
of the queue. A step of the writer costs as much as several requests, so a busy process must write seldom."""

BATCH_SHARE_MAX = 0.25
"""The largest batch, as a share of the queue's bytes. A busy event loop leaves the writer's thread little time, so a
full queue must be written in few steps."""

_SEQ_BYTES_MAX = 24
"""The largest number of bytes that the sequence number and the closing brace add to a line."""

RESERVED_SHARE = 0.1
"""The share of the room that is reserved for ``WARNING`` and above."""


class CrashBuffer(Protocol):
    """A copy of the lines that are not written yet, which survives the death of this process, such as ``ring.Ring``."""

    def append(self, line: bytes) -> int | None:
        """Copy a line. Return the mark that releases this line and all earlier ones, or None if there is no room."""

    def has_room(self, size: int) -> bool:
        """Whether ``append`` takes a line of ``size`` bytes."""

    def release(self, mark: int) -> None:
        """Release all lines up to the mark, after they were written."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot of one queue's counters."""

    queued: int
    """Lines that wait or are being written."""
    queued_bytes: int
    """Their bytes."""
    written: int
    """Lines that the sink has written, including the log's own ``log.dropped`` and ``log.closed``."""
    dropped: int
    """Lines that were dropped."""


class Batch(NamedTuple):
    """Whole lines that are given to the sink together."""

    data: bytes
    records: int
    last: int
    """The sequence number of the last line."""
    mark: int
    """The crash buffer's mark of the last line."""


_Entry = tuple[int, bytes, int]
"""A waiting line: sequence number, bytes, crash buffer's mark. A plain tuple, because each record needs one."""


class Queue:
    """A bounded queue of numbered lines; the module's docstring states its rules.

    Args:
        gap: encodes the line ``log.dropped`` for a count of dropped lines and the time of the first, in ns; or
            reports the loss elsewhere and returns None.
        wake: notifies the writer that lines wait; its argument says whether they are urgent.
        clock: the time in ns since 1970.
        max_records: the bound on queued lines.
        max_bytes: the bound on queued bytes.
        overflow: which ordinary line is dropped when the ordinary room is full.
        crash_buffer: gets a copy of each line before it is queued; a line that it has no room for is dropped.
        numbered: whether lines are JSON and end with their sequence number; otherwise they are given whole, without
            their line end.
    """

    def __init__(
        self,
        gap: Callable[[int, int], bytes | None],
        wake: Callable[[bool], None],
        clock: Callable[[], int],
        *,
        max_records: int,
        max_bytes: int,
        overflow: Overflow = "drop_new",
        crash_buffer: CrashBuffer | None = None,
        numbered: bool = True,
    ) -> None:
        self._numbered = numbered
        self._gap = gap
        self._wake = wake
        self._clock = clock
        self._records_max = max_records
        self._bytes_max = max_bytes
        reserved_records, reserved_bytes = int(max_records * RESERVED_SHARE), int(max_bytes * RESERVED_SHARE)
        self._ordinary_records_max = max_records - reserved_records
        self._ordinary_bytes_max = max_bytes - reserved_bytes
        self.full_batch = min(BATCH_BYTES, int(max_bytes * BATCH_SHARE_MAX))
        """The size of the queued lines from which on they are written at once."""
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
        self._severe_bytes = self._taken_bytes = 0
        """Those of ``_bytes`` that are of ``_severe``, and of the taken lines."""
        self._wake_level = 0
        self._written = 0
        self._dropped = 0
        self._unreported = 0
        self._unreported_since = 0

    def put(self, line: bytes, severity: int) -> int:
        """Give a line the next sequence number, and queue it or drop it. Never waits for I/O.

        Args:
            line: an encoded record without its end: the number, the closing brace and the line end are added here.
            severity: the number of its level (``level.SEVERITY``).

        Returns the number; 0 if the line was dropped, or if the call has interrupted an update of the same thread: the
        line is then queued at the end of that update.
        """
        # One long function: it runs for every record, and a call in it would cost a third of its time.
        with self._lock:
            if self._in_update:
                # A finalizer or a signal handler has interrupted an update of this thread.
                self._reentrant.append((line, severity))
                return 0
            self._in_update = True
            try:
                if self._unreported:
                    self._report_gap()
                # Numbered before the room is known: a dropped line must leave a hole in the numbers.
                self._seq = seq = self._seq + 1
                line += b"%d}\n" % seq if self._numbered else b"\n"
                size = self._bytes + len(line)
                mark: int | None = 0
                if severity >= WARNING:
                    room = self._records < self._records_max and size <= self._bytes_max
                else:
                    room = self._records < self._ordinary_records_max and size <= self._ordinary_bytes_max
                # A displaced line keeps its room in the crash buffer. If that is full, displacing would lose two lines.
                if not room and (self._crash_buffer is None or self._crash_buffer.has_room(len(line))):
                    room = self._make_room(len(line), severity >= WARNING)
                    size = self._bytes + len(line)  # Displaced lines have released bytes.
                # Copied before it is queued: a line that can be taken is always in the crash buffer.
                if room and self._crash_buffer is not None:
                    mark = self._crash_buffer.append(line)
                if not room or mark is None:
                    self._drop()
                    return 0
                if severity >= WARNING:
                    self._severe.append((seq, line, mark))
                    self._severe_bytes += len(line)
                else:
                    self._ordinary.append((seq, line, mark))
                self._records += 1
                self._bytes = size
                if self._wake_level == 0 or (
                    self._wake_level == 1 and (severity >= WARNING or size >= self.full_batch)
                ):
                    self._wake_writer(severity)
                return seq
            finally:
                # Still under the lock: these lines are queued before those of any other thread.
                self._in_update = False
                if self._reentrant:
                    self._put_reentrant()

    def put_all(self, lines: Sequence[bytes]) -> None:
        """Queue several lines below ``WARNING``, in this order, as ``put`` does."""
        with self._lock:
            # The largest size that the lines can have: their numbers are not known yet.
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
        """Queue a line as ``put`` does, with the same result. Until ``unwatch``, ``is_lost`` tells of a later drop."""
        with self._lock:
            seq = self.put(line, severity)
            if seq:
                self._watched.add(seq)
            return seq

    def is_lost(self, seq: int) -> bool:
        """Whether a watched line has been dropped; True also for a line that is not watched."""
        return seq not in self._watched

    def unwatch(self, seq: int) -> None:
        """Stop watching a line, which stays queued. ``is_lost`` is True for it from now on."""
        with self._lock:  # An update of another thread may iterate over the set.
            self._watched.discard(seq)

    def put_last(self, line: Callable[[int, int], bytes]) -> None:
        """Queue the line that ``line(written, dropped)`` returns, and drop all later lines.

        ``written`` assumes that the sink will take all queued lines; it counts them and the last line itself.
        """
        with self._lock:
            with self._exclusive():
                self._report_gap()  # Before the counts are read: its own line is one of them.
            self.put(line(self._written + self._records + 1, self._dropped), WARNING)
            self._records_max = self._ordinary_records_max = 0

    def take(self) -> Batch | None:
        """Take the next batch, of at least one line; None if no line waits. Its lines count as queued until marked."""
        with self._exclusive():
            self._wake_level = 0  # From now on a new line wakes the writer again.
            return self._take()

    def mark_written(self, batch: Batch) -> None:
        """Count the lines of a batch as written, and release their room here and in the crash buffer."""
        with self._exclusive():
            self._written += batch.records
            self._release(batch)
            if self._crash_buffer is not None:
                self._crash_buffer.release(batch.mark)
            self._report_gap()

    def mark_dropped(self, batch: Batch) -> None:
        """Count the lines of a batch as dropped, and release their room; the crash buffer keeps them."""
        with self._exclusive():
            self._drop_batch(batch)

    def close(self) -> None:
        """Drop all waiting and all later lines."""
        with self._exclusive():
            self._records_max = self._ordinary_records_max = 0
            while (batch := self._take()) is not None:
                self._drop_batch(batch)

    @property
    def last(self) -> int:
        """The latest sequence number."""
        return self._seq

    @property
    def settled(self) -> int:
        """The sequence number up to which every line is written or dropped."""
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
        """Run the block as one update; then queue the lines that interrupted it."""
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
        urgency = 2 if severity >= WARNING or self._bytes >= self.full_batch else 1
        if urgency > self._wake_level:
            self._wake_level = urgency
            self._wake(urgency == 2)

    def _take(self) -> Batch | None:
        """Merge the deques by sequence number, up to the size of a batch; at least one line."""
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
            if source is severe:
                self._severe_bytes -= len(line)
        self._taken_bytes += size
        return Batch(b"".join(lines), len(lines), last, mark) if lines else None

    def _make_room(self, size: int, severe: bool) -> bool:
        """Displace the oldest lines until a line of ``size`` bytes has room; return whether it has."""
        sources, records_max, bytes_max = [self._ordinary], self._ordinary_records_max, self._ordinary_bytes_max
        if severe:
            sources, records_max, bytes_max = [self._ordinary, self._severe], self._records_max, self._bytes_max
        elif not self._drops_oldest:
            return False
        # Checked first: if what cannot be displaced leaves no room, or the queue is closed, nothing is displaced.
        kept = self._records - sum(map(len, sources)), self._taken_bytes + (0 if severe else self._severe_bytes)
        if kept[0] >= records_max or kept[1] + size > bytes_max:
            return False
        for source in sources:
            while source:
                seq, line, _ = source.popleft()
                self._records -= 1
                self._bytes -= len(line)
                if source is self._severe:
                    self._severe_bytes -= len(line)
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
        """Queue ``log.dropped`` if lines were dropped since the last report and the line has ordinary room."""
        # Ordinary room, though the line is a warning: reports must not use up the room that is kept for warnings.
        if not self._unreported or self._records >= self._ordinary_records_max:
            return
        members = self._gap(self._unreported, self._unreported_since)
        if members is None:
            self._unreported, self._unreported_since = 0, 0
            return
        line = finish(members, self._seq + 1)
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
        self._severe_bytes += len(line)
        self._records += 1
        self._bytes += len(line)
        self._unreported, self._unreported_since = 0, 0
        if self._wake_level == 0:
            self._wake_writer(0)

    def _drop_batch(self, batch: Batch) -> None:
        self._dropped += batch.records
        # Also watched lines of earlier batches: a batch is dropped when the writer ends, so no sync follows.
        self._watched = {seq for seq in self._watched if seq > batch.last}
        self._release(batch)

    def _release(self, batch: Batch) -> None:
        self._records -= batch.records
        self._bytes -= len(batch.data)
        self._taken_bytes -= len(batch.data)
        self._settled = batch.last
