"""The one task that writes a log: it takes lines from the queue in batches and hands them to the sink.

One for each file. It knows nothing of records, and nothing that a sink does ends it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from .files.sink import Sink
from .queue import BATCH_BYTES, Batch, Queue

DRAIN_S_MAX = 2.0
"""How long the end may take: what is not written by then is counted as dropped."""

CHECK_EVERY_S = 1.0
"""How often an idle writer looks whether its file still stands at its path, and syncs it where that is asked for."""

SYNC_EVERY_S = 1.0
"""How long what is written may wait for the disk to confirm it, with ``fsync = "1s"``."""

RETENTION_EVERY_S = 3600.0

_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 5.0


class Writer:
    """Writes a queue to a sink until it is closed and the queue is empty.

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
        self._reopen_wanted = False
        self._rotate_wanted = False
        self._obeying = False
        self._unsynced_since: float | None = None
        self._sync_upto = 0
        self.synced = 0
        """Every record up to this number has been confirmed by the disk, or dropped."""
        self.unsynced = 0
        """Of the records up to this number that are not ``synced`` the disk has refused to confirm."""
        self.errors = 0
        self.last_error: str | None = None
        self.retention_error: str | None = None
        self.busy_since: float | None = None
        # Shielded: what was logged is written even while everything around is being cancelled. Its end is close(),
        # which gives it a deadline.
        self._scope = trio.CancelScope(shield=True)

    def woken(self, urgent: bool) -> None:
        """There is something to write. To be called in the trio thread."""
        at = -math.inf if urgent or self._closing else trio.current_time() + self._flush_every
        self._due = min(self._due, at)
        self._wake.set()

    def want(self, *, reopen: bool = False, rotate: bool = False, sync_upto: int = 0) -> None:
        """Ask for the file to be reopened before the next batch, renamed after it, or synced; then ``hurry``.

        May be called in any thread.
        """
        self._reopen_wanted |= reopen
        self._rotate_wanted |= rotate
        self._sync_upto = max(self._sync_upto, sync_upto)

    def hurry(self) -> None:
        """Write what waits now, after a failure too, and do what is wanted. To be called in the trio thread."""
        self._due = self._retry_at = -math.inf
        self._backoff = 0.0
        self._wake.set()

    async def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``, which is asked after each step; returns at the writer's end too."""
        while not done() and not self._ended:
            await self._progress.wait()

    async def wait_ended(self) -> None:
        """Wait until nothing will be written any more."""
        await self.wait_for(lambda: False)

    @property
    def idle(self) -> bool:
        """Whether neither a reopening nor a rotation is owed."""
        return not (self._reopen_wanted or self._rotate_wanted or self._obeying)

    async def run(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """Write until ``close`` is called and the queue is empty, at most ``DRAIN_S_MAX`` seconds longer.

        ``farewell`` is called when it is empty, and may put the last line. A cancel from outside does not reach the
        writer; ``close`` ends it.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._apply_retention)
                    await self._write()
                    await farewell()
                    await self._write()
                    nursery.cancel_scope.cancel(reason="the log is closed")
        finally:
            self._end()

    def close(self) -> None:
        """Ask the writer to drain and end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + DRAIN_S_MAX
        self.want(sync_upto=self._queue.last if self._sync_every_second else 0)
        self.hurry()

    def give_up(self) -> None:
        """End now: what is not written yet is counted as dropped. ``wait_ended`` waits for it."""
        self._scope.cancel(reason="the log gives up what its sink does not take")

    async def _write(self) -> None:
        """Step by step, until there is nothing left to do and ``close`` was called."""
        while True:
            if self._at <= trio.current_time():
                await self._step()
            if self._closing and self._at == math.inf:
                return
            at = self._at
            with trio.move_on_at(min(at, trio.current_time() + CHECK_EVERY_S)) as scope:
                await self._wake.wait()
            self._wake = trio.Event()
            if scope.cancelled_caught and at == math.inf:
                await self._check()

    @property
    def _at(self) -> float:
        """When there is something to do next."""
        if self._closing and (self._batch is not None or self._queue.waiting):
            return self._retry_at
        return max(self._due, self._retry_at)

    async def _step(self) -> None:
        """Everything that waits now, or what the sink takes of it before it fails."""
        self._due = math.inf
        self.busy_since = trio.current_time()
        try:
            await self._reopen()
            await self._put_out()
            await self._rotate()
            if self._sync_upto > max(self.synced, self.unsynced) or self._sync_due:
                await self._sync()
        except OSError as error:
            self._failed(error)
        else:
            self._succeeded()
            if self._queue.waiting and self._due == math.inf:
                self._due = trio.current_time() + self._flush_every
        finally:
            self.busy_since = None
            self._tell()

    async def _put_out(self) -> None:
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
            self._queue.wrote(batch)
            self._succeeded()
            if batch.last >= owed and self._queue.queued_bytes < BATCH_BYTES:
                return

    async def _reopen(self) -> None:
        """Reopen the file if that is wanted. If it fails, it is given up: the next batch opens the file in any case."""
        self._obeying, self._reopen_wanted = self._reopen_wanted, False
        try:
            if self._obeying:
                await self._sink.reopen()
        finally:
            self._obeying = False

    async def _rotate(self) -> None:
        """Rename the file if that is wanted, once what was recorded before is in it. If it fails, it is given up."""
        self._obeying, self._rotate_wanted = self._rotate_wanted, False
        try:
            if self._obeying and await self._sink.rotate():
                self._retention_due.set()
        finally:
            self._obeying = False

    @property
    def _sync_due(self) -> bool:
        since = self._unsynced_since
        return self._sync_every_second and since is not None and trio.current_time() >= since + SYNC_EVERY_S

    async def _check(self) -> None:
        """Once a second: has the file been taken away, and is there anything to sync."""
        try:
            await self._sink.open()
            if self._sync_due:
                await self._sync()
        except OSError as error:
            due = self._due
            self._failed(error)
            self._due = due
        else:
            if self._batch is None:
                self._succeeded()

    async def _sync(self) -> None:
        upto = self._queue.settled
        try:
            await self._sink.sync()
        except OSError:
            # A later fsync may succeed though the data is lost: what was asked for now is never confirmed.
            self.unsynced = upto
            raise
        self._unsynced_since = None
        self.synced = upto
        self._tell()

    def _succeeded(self) -> None:
        self.last_error, self._backoff, self._retry_at = None, 0.0, -math.inf
        self._tell()

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        self.last_error = error.strerror or type(error).__name__
        self._backoff = min(_BACKOFF_S_MAX, self._backoff * 2 or _BACKOFF_S_MIN)
        self._retry_at = trio.current_time() + self._backoff
        self._due = -math.inf

    def _tell(self) -> None:
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
        """Take nothing more, count what was not written as dropped, and let the sink go."""
        self._ended = True
        if self._batch is not None:
            self._queue.gave_up(self._batch)
            self._batch = None
        self._queue.close()
        self._sink.close()
        self._tell()
