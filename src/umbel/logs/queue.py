"""One file's queue of lines: bounded, numbered, safe to fill from any thread, and honest about what it had to drop.

Filled by ``log.py``, emptied by the writer. It does no I/O but into the ring, which is memory; it never waits.
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
"""How much of a full queue goes into one batch. A busy loop leaves little time to the writer's thread, so what has
piled up is written in few steps."""

_SEQ_BYTES_MAX = 24
"""What a line's number and its end add to it, at most."""

RESERVED_SHARE = 0.1
"""The last part of a queue is for ``WARNING`` and above."""


class Keeper(Protocol):
    """Where lines are safe from the death of this process until they are written: ``ring.py``."""

    def keep(self, line: bytes) -> int | None:
        """Keep a line; a mark to let go of it, and of all before it. None if there is no room."""

    def let_go(self, mark: int) -> None:
        """Everything up to the mark is written. What is given up stays."""


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
"""A waiting line: its number, itself, its mark. A plain tuple: one is made for each record."""


class Queue:
    """A bounded queue of lines in order.

    * Below ``WARNING``, a line that finds no room is dropped (``drop_new``), or takes the place of the oldest lines
      below ``WARNING`` (``drop_oldest``). The last tenth of the room is not for them.
    * From ``WARNING`` on, a line that finds no room takes the place of the oldest ones, those below ``WARNING`` first.
    * Every record has the next number, a dropped one too, so that a reader finds the hole. As soon as there is room
      again, a line made by ``gap(count, since)`` says how wide it is.

    All methods may be called from any thread, and ``put`` even from a finalizer or a signal handler that interrupts
    one of them. ``wake(urgent)`` is called when there is something to write: once, until the next ``take``.
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
        keeper: Keeper | None = None,
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
        self._keeper = keeper
        self._ordinary: deque[_Entry] = deque()
        self._severe: deque[_Entry] = deque()
        self._lock = threading.RLock()
        self._busy = False
        self._late: deque[tuple[bytes, int]] = deque()
        self._watched: set[int] = set()
        self._seq = 0
        self._settled = 0
        self._records = 0
        self._bytes = 0
        self._woken = 0
        self._written = 0
        self._dropped = 0
        self._unreported = 0
        self._unreported_since = 0

    def put(self, line: bytes, severity: int) -> int:
        """Number and queue a line, or drop and count it. Its number; 0 if it is dropped, or comes at a bad moment."""
        # One long function, because it runs for every record, and a call costs as much as a third of it.
        with self._lock:
            if self._busy:
                # A finalizer or a signal handler has interrupted a turn of this very thread: it follows at its end.
                self._late.append((line, severity))
                return 0
            self._busy = True
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
                if room and self._keeper is not None:
                    mark = self._keeper.keep(line)
                if not room or mark is None:
                    self._drop()
                    return 0
                (self._severe if severity >= WARNING else self._ordinary).append((seq, line, mark))
                self._records += 1
                self._bytes = size
                if self._woken == 0 or (self._woken == 1 and (severity >= WARNING or size >= BATCH_BYTES)):
                    self._wake_for(severity)
                return seq
            finally:
                self._busy = False
                if self._late:
                    self._put_late()

    def put_all(self, lines: Sequence[bytes]) -> None:
        """The same for several lines below ``WARNING``, in one turn where there is room for all of them."""
        with self._lock:
            size = self._bytes + sum(map(len, lines)) + _SEQ_BYTES_MAX * len(lines)
            room = self._records + len(lines) <= self._ordinary_records_max and size <= self._ordinary_bytes_max
            if not room or self._busy or self._unreported or self._keeper is not None:
                for line in lines:
                    self.put(line, 0)
                return
            self._busy = True
            try:
                seq, size, ordinary = self._seq, self._bytes, self._ordinary
                for line in lines:
                    seq += 1
                    line += b"%d}\n" % seq
                    size += len(line)
                    ordinary.append((seq, line, 0))
                self._seq, self._bytes = seq, size
                self._records += len(lines)
                if self._woken < 2:
                    self._wake_for(0)
            finally:
                self._busy = False
                if self._late:
                    self._put_late()

    def put_watched(self, line: bytes, severity: int) -> int:
        """As ``put``, and ``is_lost`` will tell whether the line was dropped later. ``unwatch`` it at the end."""
        with self._lock:
            seq = self.put(line, severity)
            if seq:
                self._watched.add(seq)
            return seq

    def is_lost(self, seq: int) -> bool:
        """Whether a watched line was dropped."""
        return seq not in self._watched

    def unwatch(self, seq: int) -> None:
        """Nobody asks for this line any more."""
        self._watched.discard(seq)

    def put_last(self, line: Callable[[int, int], bytes]) -> None:
        """Put the line that ``line(written, dropped)`` makes, itself counted as written, and drop all that follow."""
        with self._lock:
            with self._turn():
                self._report_gap()
            self.put(line(self._written + self._records + 1, self._dropped), WARNING)
            self._records_max = self._ordinary_records_max = 0

    def take(self) -> Batch | None:
        """The next batch; None if nothing waits. It fills the queue until ``wrote`` or ``gave_up``."""
        with self._turn():
            self._woken = 0
            return self._take()

    def wrote(self, batch: Batch) -> None:
        """The batch is in the file."""
        with self._turn():
            self._written += batch.records
            self._release(batch)
            if self._keeper is not None:
                self._keeper.let_go(batch.mark)
            self._report_gap()

    def gave_up(self, batch: Batch) -> None:
        """The batch will not be written any more."""
        with self._turn():
            self._give_up(batch)

    def close(self) -> None:
        """Give up what waits, and drop whatever is still put."""
        with self._turn():
            self._records_max = self._ordinary_records_max = 0
            while (batch := self._take()) is not None:
                self._give_up(batch)

    @property
    def last(self) -> int:
        """The number of the latest record."""
        return self._seq

    @property
    def settled(self) -> int:
        """Of every record up to this number it is known whether it is written or dropped."""
        with self._lock:
            return self._settled if self._records else self._seq

    @property
    def waiting(self) -> bool:
        """Whether lines wait to be taken."""
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
    def _turn(self) -> Iterator[None]:
        with self._lock:
            self._busy = True
            try:
                yield
            finally:
                self._busy = False
                self._put_late()

    def _put_late(self) -> None:
        while self._late:
            self.put(*self._late.popleft())

    def _wake_for(self, severity: int) -> None:
        urgency = 2 if severity >= WARNING or self._bytes >= BATCH_BYTES else 1
        if urgency > self._woken:
            self._woken = urgency
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
        """Drop the oldest lines for one of ``size`` bytes; False if it may not, or if that does not help."""
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
        """Put the line about what was dropped into the room for ordinary lines, if there is any."""
        if not self._unreported or self._records >= self._ordinary_records_max:
            return
        line = finish(self._gap(self._unreported, self._unreported_since), self._seq + 1)
        if self._bytes + len(line) > self._ordinary_bytes_max:
            return
        mark = 0
        if self._keeper is not None:
            kept = self._keeper.keep(line)
            if kept is None:
                return
            mark = kept
        self._seq += 1
        self._severe.append((self._seq, line, mark))
        self._records += 1
        self._bytes += len(line)
        self._unreported, self._unreported_since = 0, 0
        if self._woken == 0:
            self._wake_for(0)

    def _give_up(self, batch: Batch) -> None:
        self._dropped += batch.records
        self._watched = {seq for seq in self._watched if seq > batch.last}
        self._release(batch)

    def _release(self, batch: Batch) -> None:
        self._records -= batch.records
        self._bytes -= len(batch.data)
        self._settled = batch.last
