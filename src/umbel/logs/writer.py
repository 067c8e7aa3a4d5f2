"""The writer task of a log: takes lines from the queue in batches and gives them to the sink.

One task per sink. No error of a sink ends it: it tries again, and meanwhile the queue fills and drops.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from .files.sink import Sink
from .queue import BATCH_BYTES, Batch, Queue

DRAIN_S_MAX = 2.0
"""Seconds that ``close`` allows: lines that are not written by then are counted as dropped."""

CHECK_EVERY_S = 1.0
"""How often an idle writer checks that the file is still at its path, and syncs it with ``fsync = "1s"``."""

SYNC_EVERY_S = 1.0
"""Seconds after which written lines are synced, with ``fsync = "1s"``."""

RETENTION_EVERY_S = 3600.0

_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 5.0


class Writer:
    """The writer of a queue to a sink, until it is closed and the queue is empty.

    A batch is written when it is big enough, when its first line has waited ``flush_every`` seconds, or at once after
    an urgent line. A sink that fails is tried again with back-off; meanwhile the queue fills.
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
        """The number up to which every record has been confirmed by the disk, or dropped."""
        self.unsynced = 0
        """The number up to which the disk has refused to confirm the records that are not ``synced``."""
        self.errors = 0
        self.last_error: str | None = None
        self.retention_error: str | None = None
        self.busy_since: float | None = None
        # Shielded: records are written even while everything around is being cancelled. close() gives the scope a
        # deadline, so that the shield cannot hold up the end.
        self._scope = trio.CancelScope(shield=True)

    def on_wake(self, urgent: bool) -> None:
        """Mark that there is something to write. To be called in the trio thread."""
        at = -math.inf if urgent or self._closing else trio.current_time() + self._flush_every
        self._due = min(self._due, at)
        self._wake.set()

    def request(self, *, reopen: bool = False, rotate: bool = False, sync_upto: int = 0) -> None:
        """Request that the file is reopened before the next batch, renamed after it, or synced; to be followed by
        ``write_now``.

        May be called in any thread.
        """
        self._reopen_requested |= reopen
        self._rotate_requested |= rotate
        self._sync_upto = max(self._sync_upto, sync_upto)

    def write_now(self) -> None:
        """Write what waits now, without back-off, and carry out the requests. To be called in the trio thread."""
        self._due = self._retry_at = -math.inf
        self._backoff = 0.0
        self._wake.set()

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``, which is called after each step, is true or the writer has ended."""
        while not done() and not self._ended:
            await self._progress.wait()

    async def wait_ended(self) -> None:
        """Wait until the writer has ended."""
        await self.wait_until(lambda: False)

    @property
    def idle(self) -> bool:
        """Whether no request to reopen or rotate is open."""
        return not (self._reopen_requested or self._rotate_requested or self._serving_request)

    async def run(self, put_closed_record: Callable[[], Awaitable[None]]) -> None:
        """Write until ``close`` is called and the queue is empty, at most ``DRAIN_S_MAX`` seconds longer.

        ``put_closed_record`` is called when the queue is empty, and may queue the last line. An outer cancel does not
        reach the writer; ``close`` ends it.
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
        """Ask the writer to drain and end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + DRAIN_S_MAX
        self.request(sync_upto=self._queue.last if self._sync_every_second else 0)
        self.write_now()

    def abandon(self) -> None:
        """End now: lines that are not written yet are counted as dropped. ``wait_ended`` waits for the end."""
        self._scope.cancel(reason="the log gives up what its sink does not take")

    async def _write(self) -> None:
        """Write step by step, until ``close`` was called and nothing is left to do."""
        while True:
            if self._next_at <= trio.current_time():
                await self._step()
            if self._closing and self._next_at == math.inf:
                return
            at = self._next_at
            with trio.move_on_at(min(at, trio.current_time() + CHECK_EVERY_S)) as scope:
                await self._wake.wait()
            self._wake = trio.Event()
            if scope.cancelled_caught and at == math.inf:
                await self._check_file()

    @property
    def _next_at(self) -> float:
        """The time of the next step."""
        if self._closing and (self._batch is not None or self._queue.waiting):
            return self._retry_at
        return max(self._due, self._retry_at)

    async def _step(self) -> None:
        """Carry out requests and write what waits now, up to the first failure of the sink."""
        self._due = math.inf
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
                self._due = trio.current_time() + self._flush_every
        finally:
            self.busy_since = None
            self._notify_progress()

    async def _write_batches(self) -> None:
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
            self._on_success()
            if batch.last >= owed and self._queue.queued_bytes < BATCH_BYTES:
                return

    async def _reopen(self) -> None:
        """Reopen the file on request. A failure ends the request: the next batch opens the file in any case."""
        self._serving_request, self._reopen_requested = self._reopen_requested, False
        try:
            if self._serving_request:
                await self._sink.reopen()
        finally:
            self._serving_request = False

    async def _rotate(self) -> None:
        """Rename the file on request, once earlier records are in it. A failure ends the request."""
        self._serving_request, self._rotate_requested = self._rotate_requested, False
        try:
            if self._serving_request and await self._sink.rotate():
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
            due = self._due
            self._on_failure(error)
            self._due = due
        else:
            if self._batch is None:
                self._on_success()

    async def _sync(self) -> None:
        upto = self._queue.settled
        try:
            await self._sink.sync()
        except OSError:
            # After a failed fsync a later one may succeed though the data is lost: these records are never confirmed.
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
        """Apply retention at the start, after each rotation, and every hour."""
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
        if self._batch is not None:
            self._queue.mark_dropped(self._batch)
            self._batch = None
        self._queue.close()
        self._sink.close()
        self._notify_progress()
