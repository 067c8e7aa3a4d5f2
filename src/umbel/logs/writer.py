"""The one task that writes: it takes lines from the streams' queues in batches and hands them to their sinks.

Run by the recorder. It knows nothing of records, and nothing that a sink does ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from .sink import Sink
from .stream import Batch, Stream

BATCH_BYTES = 64 * 1024
"""A batch is written when it has this size, whatever its age."""

DRAIN_S_MAX = 2.0
"""How long the end may take: what is not written by then is counted as dropped."""

_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 5.0


class Outlet:
    """A stream, its sink, the batch on its way from one to the other, and when the next is due."""

    def __init__(self, stream: Stream, sink: Sink) -> None:
        self.stream = stream
        self.sink = sink
        self.due = math.inf
        """When the waiting lines are to be written; infinite where none waits."""
        self._retry_at = -math.inf
        self._backoff = 0.0
        self._batch: Batch | None = None
        self._done = 0
        """Bytes of the batch that are written."""

    @property
    def at(self) -> float:
        """When there is something to do next."""
        return self.due if self._batch is None else self._retry_at

    def hurry(self) -> None:
        """Write what waits now, after a failure too."""
        self.due = self._retry_at = -math.inf
        self._backoff = 0.0

    async def flush(self) -> None:
        """Write the lines that wait now, or what the sink takes of them before it fails."""
        owed = len(self.stream)
        self.due = math.inf
        while self._batch is not None or owed > 0:
            if self._batch is None:
                self._batch, self._done = self.stream.take(BATCH_BYTES), 0
                owed -= self._batch.records
            try:
                await self._write(self._batch.data)
            except OSError as error:
                self.stream.failed(error)
                self._backoff = min(_BACKOFF_S_MAX, self._backoff * 2 or _BACKOFF_S_MIN)
                self._retry_at = trio.current_time() + self._backoff
                return
            self.stream.wrote(self._batch)
            self._batch, self._backoff = None, 0.0
            if self.stream.report_gap():
                self.due = -math.inf

    async def _write(self, data: bytes) -> None:
        if await self.sink.ready():
            # Another file than before: a record that was cut in the old one is written whole in the new one.
            self._done = data.rfind(b"\n", 0, self._done) + 1
        while self._done < len(data):
            self._done += await self.sink.write(data[self._done :] if self._done else data)

    def end(self) -> None:
        """Take nothing more, count what was not written as dropped, and let the sink go."""
        if self._batch is not None:
            self.stream.gave_up(self._batch)
            self._batch = None
        self.stream.close()
        self.sink.close()


class Writer:
    """Writes the streams to their sinks until it is closed and they are empty.

    A batch is written when it is big enough, when its first line has waited ``flush_every`` seconds, or at once after
    an urgent line. A sink that fails is tried again with back-off; meanwhile its queue fills, and the others go on.
    """

    def __init__(self, outlets: Sequence[Outlet], *, flush_every: float) -> None:
        self._outlets = outlets
        self._flush_every = flush_every
        self._wake = trio.Event()
        self._closing = False
        # Shielded: what a request owed to the log is written even while everything around is being cancelled. Its end
        # is close(), which gives it a deadline.
        self._scope = trio.CancelScope(shield=True)

    def put(self, outlet: Outlet, line: bytes, *, urgent: bool = False) -> None:
        """Queue a line, or drop and count it. A plain function of the trio thread: never waits, never raises."""
        outlet.stream.put(line)
        if urgent or self._closing or outlet.stream.queued_bytes >= BATCH_BYTES:
            if outlet.due > -math.inf:
                outlet.due = -math.inf
                self._wake.set()
        elif outlet.due == math.inf:
            outlet.due = trio.current_time() + self._flush_every
            self._wake.set()

    async def run(self, farewell: Callable[[], None]) -> None:
        """Write until ``close`` is called and the queues are empty, at most ``DRAIN_S_MAX`` seconds longer.

        ``farewell`` is called when they are empty, and may put the last lines. A cancel from outside does not reach
        the writer; ``close`` ends it.
        """
        try:
            with self._scope:
                await self._write()
                farewell()
                await self._write()
        finally:
            for outlet in self._outlets:
                outlet.end()

    def close(self) -> None:
        """Ask the writer to drain and end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + DRAIN_S_MAX
        for outlet in self._outlets:
            outlet.hurry()
        self._wake.set()

    async def _write(self) -> None:
        while True:
            for outlet in self._outlets:
                if outlet.at <= trio.current_time():
                    await outlet.flush()
            if self._closing and all(outlet.at == math.inf for outlet in self._outlets):
                return
            with trio.move_on_at(min(outlet.at for outlet in self._outlets)):
                await self._wake.wait()
            self._wake = trio.Event()
