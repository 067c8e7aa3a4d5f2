"""Log sinks for tests: one in memory that a test makes fail or hang, and a file sink whose writes a test can await.

The sink in memory uses no thread, so it works with a mock clock.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_util import AsyncValue

from umbel.logs.files.file import LogFile
from umbel.logs.files.retention import Retention
from umbel.logs.files.rotation import Rotation
from umbel.logs.files.sink import FileSink
from umbel.logs.log import Log, run_writers
from umbel.logs.options import LogOptions
from umbel.logs.recorder import FileRecorder, record_to


class MemorySink:
    """A sink in memory. ``error``, ``sync_error``, ``hang`` and ``seconds_per_write`` decide what its methods do."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.writes: list[tuple[float, int]] = []
        """The time and the number of bytes of each write."""
        self.error: OSError | None = None
        self.sync_error: OSError | None = None
        self.hang = False
        self.seconds_per_write = 0.0
        self.closed = False
        self.did: list[str] = []
        """The names of the other methods that were called, in order."""

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error

    async def append(self, lines: bytes) -> bool:
        await trio.sleep(self.seconds_per_write)
        if self.hang:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        self.data += lines
        self.writes.append((trio.current_time(), len(lines)))
        return False

    async def reopen(self) -> None:
        await self.open()
        self.did.append("reopen")

    async def rotate(self) -> bool:
        await self.open()
        self.did.append("rotate")
        return True

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.sync_error is not None:
            raise self.sync_error
        self.did.append("sync")

    async def apply_retention(self) -> None:
        await trio.lowlevel.checkpoint()
        self.did.append("apply_retention")

    def close(self) -> None:
        self.closed = True

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of all lines. A line that is not a complete JSON value raises."""
        return [json.loads(line) for line in bytes(self.data).decode().splitlines()]

    @property
    def events(self) -> list[str]:
        return [record["event"] for record in self.records]


@asynccontextmanager
async def memory_log(sink: MemorySink, *, clock_ns: int | None = None, **options: Any) -> AsyncGenerator[Log, None]:
    """Open a log over ``sink``. With ``clock_ns`` the wall clock starts there and advances 1 µs per record."""
    ticks = itertools.count(clock_ns or 0, 1000)
    clock = {} if clock_ns is None else {"clock": lambda: next(ticks)}
    log = Log(sink, LogOptions(**{"service": "test", **options}), **clock)
    async with run_writers({log: log.put_closed_record}):
        yield log


class MemoryLog:
    """The three streams of a recorder, in memory."""

    def __init__(self) -> None:
        self.access, self.calls, self.app = MemorySink(), MemorySink(), MemorySink()

    @asynccontextmanager
    async def open(
        self, *, max_records: int = 1000, flush_every: float = 0.25, **given: Any
    ) -> AsyncGenerator[FileRecorder, None]:
        options = LogOptions(max_queue_records=max_records, flush_every=flush_every, service="umbel")
        sinks = {"access": self.access, "calls": self.calls, "app": self.app}
        async with record_to(sinks, options, **given) as recorder:
            yield recorder


class TellingFile(FileSink):
    """A file sink; a test can wait for ``lines`` (lines written) and ``failures`` (writes that raised OSError)."""

    def __init__(self, path: Path) -> None:
        super().__init__(LogFile(path, Rotation()), Retention())
        self.lines = AsyncValue(0)
        self.failures = AsyncValue(0)

    async def append(self, lines: bytes) -> bool:
        try:
            rotated = await super().append(lines)
        except OSError:
            self.failures.value += 1
            raise
        self.lines.value += lines.count(b"\n")
        return rotated

    async def has_lines(self, count: int) -> None:
        """Wait until at least ``count`` lines are written."""
        await self.lines.wait_value(lambda lines: lines >= count)


class FileLog:
    """The three streams of a recorder, in real files of ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.access, self.calls, self.app = (
            TellingFile(directory / f"{name}.jsonl") for name in ("access", "calls", "app")
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[FileRecorder, None]:
        sinks = {"access": self.access, "calls": self.calls, "app": self.app}
        async with record_to(sinks, LogOptions(flush_every=0.001, service="umbel")) as recorder:
            yield recorder
