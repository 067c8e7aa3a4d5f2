"""Sinks: the protocol of a log's destination, and the sink of a file, whose work is done in threads.

For one task at a time. Each sink has threads of its own, so that a disk that hangs blocks neither the event loop nor
another log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from .file import LogFile
from .retention import Retention, apply_retention

_T = TypeVar("_T")


class Sink(Protocol):
    """The destination of a log's lines; one call at a time, except for ``apply_retention``."""

    async def open(self) -> None:
        """Open the destination, or check that it is still the right one.

        Raises:
            OSError: it cannot be opened now.
        """

    async def append(self, lines: bytes) -> bool:
        """Append all lines; return whether a file was renamed, so that ``apply_retention`` is due.

        Raises:
            OSError: not all lines were written. The next call has the same lines, and writes those that are missing.
        """

    async def reopen(self) -> None:
        """Close the destination and open it again.

        Raises:
            OSError: it cannot be opened now.
        """

    async def rotate(self) -> bool:
        """Begin a new file; return whether there was one to rename.

        Raises:
            OSError: it cannot now.
        """

    async def sync(self) -> None:
        """Wait until the appended lines would survive a loss of power.

        Raises:
            OSError: they would not.
        """

    async def apply_retention(self) -> None:
        """Compress and remove renamed files.

        Raises:
            OSError: one of them could not be compressed or removed.
        """

    def close(self) -> None:
        """Close the destination, without waiting."""


class FileSink:
    """A sink for a ``LogFile``, in a thread. A cancel leaves the thread behind, which may be blocked by the disk."""

    def __init__(self, file: LogFile, retention: Retention) -> None:
        self._file = file
        self.path = file.path
        """The path of the file, for people."""
        self._retention = retention
        self._writing = trio.CapacityLimiter(1)
        self._retaining = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Open the file unless it is open and still at its path."""
        await self._in_thread(self._file.open)

    async def append(self, lines: bytes) -> bool:
        """Append the lines to the file."""
        before = self._file.rotations
        await self._in_thread(lambda: self._file.append(lines))
        return self._file.rotations != before

    async def reopen(self) -> None:
        """Close the file and open the file at its path."""
        await self._in_thread(self._file.reopen)

    async def rotate(self) -> bool:
        """Rename the file and open a new one."""
        return await self._in_thread(self._file.rotate)

    async def sync(self) -> None:
        """``fdatasync`` the file."""
        await self._in_thread(self._file.sync)

    async def apply_retention(self) -> None:
        """Compress renamed files and remove those beyond the bounds."""
        await trio.to_thread.run_sync(
            apply_retention,
            self._file.path,
            self._retention,
            time.time(),
            abandon_on_cancel=True,
            limiter=self._retaining,
        )

    def close(self) -> None:
        """Close the file. A thread that was left behind may still use it: then it stays open until the process ends."""
        if self._writing.borrowed_tokens == 0:
            self._file.close()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._writing)
