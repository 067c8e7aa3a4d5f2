"""Log sinks for tests: one in memory that fails and hangs at will, and a real file that tells when it was written.

The one in memory uses no thread, so it fits a mock clock.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_util import AsyncValue

from umbel.logs.recorder import FileRecorder, record_to
from umbel.logs.sink import FileSink


class MemorySink:
    def __init__(self) -> None:
        self.files: list[bytearray] = []
        self.writes: list[tuple[float, int]] = []
        """When, and how many bytes."""
        self.error: OSError | None = None
        self.bytes_before_error: int | None = None
        self.bytes_per_write: int | None = None
        self.hang = False
        self.replaced = True
        self.closed = False

    async def ready(self) -> bool:
        await trio.lowlevel.checkpoint()
        if self.error is not None and self.bytes_before_error is None:
            raise self.error
        replaced, self.replaced = self.replaced, False
        if replaced:
            self.files.append(bytearray())
        return replaced

    async def write(self, data: bytes) -> int:
        await trio.lowlevel.checkpoint()
        if self.hang:
            await trio.sleep_forever()
        if self.bytes_before_error is not None:
            if self.bytes_before_error == 0:
                assert self.error is not None
                raise self.error
            data = data[: self.bytes_before_error]
            self.bytes_before_error -= len(data)
        data = data[: self.bytes_per_write]
        self.files[-1] += data
        self.writes.append((trio.current_time(), len(data)))
        return len(data)

    def close(self) -> None:
        self.closed = True

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every line of every file; fails on one that is not a whole JSON object."""
        return [json.loads(line) for file in self.files for line in bytes(file).decode().splitlines()]

    @property
    def events(self) -> list[str]:
        return [record["event"] for record in self.records]


class MemoryLog:
    """The three streams of a recorder, in memory."""

    def __init__(self) -> None:
        self.access, self.calls, self.app = MemorySink(), MemorySink(), MemorySink()

    @asynccontextmanager
    async def open(self, *, max_records: int = 1000, flush_every: float = 0.25) -> AsyncGenerator[FileRecorder, None]:
        sinks = {"access": self.access, "calls": self.calls, "app": self.app}
        async with record_to(sinks, max_records=max_records, flush_every=flush_every) as recorder:
            yield recorder


class TellingFile(FileSink):
    """A file whose lines and whose refusals a test can wait for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lines = AsyncValue(0)
        self.refusals = AsyncValue(0)

    async def write(self, data: bytes) -> int:
        try:
            count = await super().write(data)
        except OSError:
            self.refusals.value += 1
            raise
        self.lines.value += data[:count].count(b"\n")
        return count

    async def has_lines(self, count: int) -> None:
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
        async with record_to(sinks, max_records=1000, flush_every=0.001) as recorder:
            yield recorder
