"""The writer task of a log: takes lines from the queue in batches and gives them to the sink.

Theory
======

The problem. Few large writes are cheap, but a record must not wait long; a sink may fail or hang for any time; and the
end of the program must be bounded. There is one writer per sink, and it is the only caller of the sink, except for
``apply_retention``, which runs in a task and a thread of its own.

The loop. The writer works in steps. ``_due`` is the time of the next step for the lines and requests at hand (infinity:
nothing to do), ``_retry_at`` the earliest time after a failure (minus infinity: no failure). The next step is at the
later of the two. ``_wake`` only interrupts the wait; what is to be done is in ``_due`` and in the requests, which are
set before ``_wake``. ``_due`` is cleared at the *beginning* of a step, so that a wake during the step counts for the
next one.

    =====================================  ====================================================
    event                                  the next step is due
    =====================================  ====================================================
    first ordinary line since ``take``     ``flush_every`` seconds later
    urgent line, or a full batch           at once
    ``write_now``, ``close``               at once, and the backoff is over
    step succeeded, lines are left         ``flush_every`` seconds later
    step failed (``OSError``)              after a backoff of 0.1 s, doubled up to 5 s
    =====================================  ====================================================

A step reopens the file if that was requested, writes batches until all lines that waited at its beginning are written,
rotates if that was requested, and syncs if that was requested or is due. Its first failure ends the step.

Invariants:

1.  ``_batch`` is the only batch that was taken and not marked. After a failure the *same* bytes are given to the sink
    again, because the sink remembers how many of them it has written already.
2.  A batch is marked as written after ``append`` has returned, never earlier.
3.  ``sync`` confirms what the queue had settled *before* it was called. If it fails, the records up to that number are
    ``unsynced`` for good: the kernel may have discarded the dirty pages, so that a later success proves nothing.
4.  Every failure of the sink is an ``OSError`` and never ends the writer; the queue fills meanwhile, and drops. It is
    counted, and shown by ``last_error`` until a step or an idle check of the file succeeds. The backoff begins again
    with each batch that is written. Failures of ``apply_retention`` are not counted; ``retention_error`` shows the
    latest one until it succeeds.

The end. ``close`` gives the writer ``DRAIN_S_MAX`` seconds; it drains the queue, queues the last record
(``put_closed_record``) and drains again. ``_end`` counts the rest as dropped, on whatever way the writer ends.

Cancellation. The scope is shielded: an outer cancel interrupts no await here. Only the deadline that ``close`` sets and
``abandon`` cancel the scope. If either interrupts a call of the sink, its thread may go on and write lines that are
counted as dropped: ``log.closed`` may state too few written records, never too many.

Threads. ``request_reopen`` and ``request_rotate`` may be called in any thread and in signal handlers, so no lock may be
taken: each only sets a flag, and only the writer resets a flag, after it has read True. A request that comes between
the two is served by the work that follows. Everything else runs in the trio thread.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from .files.sink import Sink
from .queue import Batch, Queue

DRAIN_S_MAX = 2.0
"""Seconds between ``close`` and the end of the writer, at most; lines that are not written by then are dropped."""

CHECK_EVERY_S = 1.0
"""Seconds between two checks of an idle writer: whether the file is still at its path, and whether a sync is due."""

SYNC_EVERY_S = 1.0
"""Seconds after which written lines are synced, with ``fsync = "1s"``."""

RETENTION_EVERY_S = 3600.0
"""Seconds after which retention is applied again if no rotation has asked for it."""

_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 5.0


class Writer:
    """The writer of one queue to one sink; the module's docstring states its rules.

    Args:
        queue: the queue whose lines are written.
        sink: the destination; nothing else may append to it, sync it or rename it meanwhile.
        flush_every: seconds that an ordinary line may wait for its batch.
        sync_every_second: whether written lines are synced after ``SYNC_EVERY_S`` without a request.
    """

    def __init__(self, queue: Queue, sink: Sink, *, flush_every: float, sync_every_second: bool) -> None:
        self._queue = queue
        self._sink = sink
        self._flush_every = flush_every
        self._sync_every_second = sync_every_second
        self._batch: Batch | None = None
        self._due = math.inf
        self._retry_at = -math.inf
        self._backoff = 0.0
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._retention_due = trio.Event()
        self._closing = False
        self._ended = False
        self._reopen_requested = False
        self._rotate_requested = False
        self._serving_request = False
        self._unsynced_since: float | None = None
        self._sync_upto = 0
        self.synced = 0
        """The sequence number up to which a sync has confirmed the records that were written."""
        self.unsynced = 0
        """The sequence number up to which the latest failed sync was to confirm records; those after ``synced`` are
        never confirmed."""
        self.errors = 0
        """Failures of the sink."""
        self.last_error: str | None = None
        """The reason of the latest failure; None after a success."""
        self.retention_error: str | None = None
        """The reason why the latest compression or removal of files failed; None after a success."""
        self.busy_since: float | None = None
        """When the present step began, in trio's time; None between steps."""
        # Shielded: records are written even while everything around is being cancelled. close() gives the scope a
        # deadline, so the shield cannot delay the end without bound.
        self._scope = trio.CancelScope(shield=True)

    def on_wake(self, urgent: bool) -> None:
        """Schedule a step for new lines: at once if they are urgent, else after ``flush_every``.

        Must be called in the trio thread.
        """
        at = -math.inf if urgent or self._closing else trio.current_time() + self._flush_every
        self._due = min(self._due, at)
        self._wake.set()

    def request_reopen(self) -> None:
        """Request that the next step reopens the file. For any thread; in the trio thread ``write_now`` must follow."""
        self._reopen_requested = True

    def request_rotate(self) -> None:
        """Request that the next step rotates the file. For any thread; in the trio thread ``write_now`` must follow."""
        self._rotate_requested = True

    def request_sync(self, upto: int) -> None:
        """Request that the next step syncs the records up to number ``upto``. ``write_now`` must follow.

        Must be called in the trio thread.
        """
        self._sync_upto = max(self._sync_upto, upto)

    def write_now(self) -> None:
        """Make the next step due now, without backoff. Must be called in the trio thread."""
        self._due = self._retry_at = -math.inf
        self._backoff = 0.0
        self._wake.set()

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()`` is true or the writer has ended.

        ``done`` is called now, and again after each batch, sync and step. A cancel ends the wait and nothing else.
        """
        while not done() and not self._ended:
            await self._progress.wait()

    async def wait_ended(self) -> None:
        """Wait until the writer has ended."""
        await self.wait_until(lambda: False)

    @property
    def idle(self) -> bool:
        """Whether no request to reopen or rotate is pending or in progress."""
        return not (self._reopen_requested or self._rotate_requested or self._serving_request)

    async def run(self, put_closed_record: Callable[[], Awaitable[None]]) -> None:
        """Write until ``close`` is called and the queue is empty, at most ``DRAIN_S_MAX`` seconds after ``close``.

        ``put_closed_record`` is awaited once the queue is empty, and may queue the last line. An outer cancel does not
        end the writer; ``close`` and ``abandon`` do.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._apply_retention)
                    await self._write()
                    await put_closed_record()
                    await self._write()
                    nursery.cancel_scope.cancel(reason="the log is closed")
        finally:
            self._end()

    def close(self) -> None:
        """Begin the end: drain the queue within ``DRAIN_S_MAX`` seconds. ``wait_ended`` waits for the end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + DRAIN_S_MAX
        if self._sync_every_second:
            self.request_sync(self._queue.last)
        self.write_now()

    def abandon(self) -> None:
        """Cancel the writer: the lines not yet written are counted as dropped. ``wait_ended`` waits for the end."""
        self._scope.cancel(reason="the log ended before its sink had taken all lines")

    async def _write(self) -> None:
        """Run the loop until ``close`` was called and nothing is left to do."""
        while True:
            if self._next_at <= trio.current_time():
                await self._step()
            if self._closing and self._next_at == math.inf:
                return
            at = self._next_at
            with trio.move_on_at(min(at, trio.current_time() + CHECK_EVERY_S)) as scope:
                await self._wake.wait()
            # No checkpoint since the wait ended, so no wake is lost; and a step that is due now is found by its time.
            self._wake = trio.Event()
            if scope.cancelled_caught and at == math.inf:
                await self._check_file()

    @property
    def _next_at(self) -> float:
        """The time of the next step; infinity if nothing is to be done."""
        if self._closing and (self._batch is not None or self._queue.waiting):
            return self._retry_at  # A line that waits is due at once.
        return max(self._due, self._retry_at)

    async def _step(self) -> None:
        """Carry out the requests and write the waiting lines; the first failure of the sink ends the step."""
        self._due = math.inf  # First: a wake during the step makes the next one due.
        self.busy_since = trio.current_time()
        try:
            await self._reopen()
            await self._write_batches()
            await self._rotate()
            if self._sync_upto > max(self.synced, self.unsynced) or self._sync_due:
                await self._sync()
        except OSError as error:
            self._on_failure(error)
        else:
            self._on_success()
            if self._queue.waiting and self._due == math.inf:
                # Lines that were queued before the last take() and did not fit into it: they wake nobody.
                self._due = trio.current_time() + self._flush_every
        finally:
            self.busy_since = None
            self._notify_progress()

    async def _write_batches(self) -> None:
        """Write all lines that wait now, and further whole batches; a partial batch may wait for ``flush_every``."""
        owed = self._queue.last
        while self._batch is not None or self._queue.waiting:
            self._batch = batch = self._batch or self._queue.take()
            if batch is None:
                return
            if await self._sink.append(batch.data):
                self._retention_due.set()
            if self._unsynced_since is None:
                self._unsynced_since = trio.current_time()
            self._batch = None
            self._queue.mark_written(batch)
            self._backoff = 0.0  # Only the backoff: the step may still fail, as each one did before.
            self._notify_progress()
            if batch.last >= owed and self._queue.queued_bytes < self._queue.full_batch:
                return

    async def _reopen(self) -> None:
        """Reopen the file if that was requested. A failure ends the request: the next batch opens the file anyway."""
        if not self._reopen_requested:
            return
        self._serving_request, self._reopen_requested = True, False
        try:
            await self._sink.reopen()
        finally:
            self._serving_request = False

    async def _rotate(self) -> None:
        """Rotate the file if that was requested, after earlier records were written. A failure ends the request."""
        if not self._rotate_requested:
            return
        self._serving_request, self._rotate_requested = True, False
        try:
            if await self._sink.rotate():
                self._retention_due.set()
        finally:
            self._serving_request = False

    @property
    def _sync_due(self) -> bool:
        since = self._unsynced_since
        return self._sync_every_second and since is not None and trio.current_time() >= since + SYNC_EVERY_S

    async def _check_file(self) -> None:
        """Check that the file is still at its path, and sync it if that is due."""
        try:
            await self._sink.open()
            if self._sync_due:
                await self._sync()
        except OSError as error:
            # No line waits, so no step is due: the next check tries again.
            due = self._due
            self._on_failure(error)
            self._due = due
        else:
            if self._batch is None:
                self._on_success()

    async def _sync(self) -> None:
        upto = self._queue.settled  # Read before the call: a line that is written meanwhile may miss the sync.
        try:
            await self._sink.sync()
        except OSError:
            # A later fsync may succeed though these pages are lost: the records up to here are never confirmed.
            self.unsynced = upto
            raise
        self._unsynced_since = None
        self.synced = upto
        self._notify_progress()

    def _on_success(self) -> None:
        self.last_error, self._backoff, self._retry_at = None, 0.0, -math.inf
        self._notify_progress()

    def _on_failure(self, error: OSError) -> None:
        self.errors += 1
        self.last_error = error.strerror or type(error).__name__
        self._backoff = min(_BACKOFF_S_MAX, self._backoff * 2 or _BACKOFF_S_MIN)
        self._retry_at = trio.current_time() + self._backoff
        self._due = -math.inf

    def _notify_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    async def _apply_retention(self) -> None:
        """Apply retention at the start, after each rotation, and every hour; failures are kept in the counters."""
        while True:
            try:
                await self._sink.apply_retention()
            except OSError as error:
                self.retention_error = error.strerror or type(error).__name__
            else:
                self.retention_error = None
            with trio.move_on_after(RETENTION_EVERY_S):
                await self._retention_due.wait()
            self._retention_due = trio.Event()

    def _end(self) -> None:
        """Close the queue and the sink; lines that were not written are counted as dropped."""
        self._ended = True
        if self._batch is not None:  # Before the waiting lines, which have higher numbers.
            self._queue.mark_dropped(self._batch)
            self._batch = None
        self._queue.close()
        self._sink.close()
        self._notify_progress()
