"""Where a log's bytes end up: the Sink protocol, and the file behind it, whose work is done in threads.

For one task at a time. A sink knows bytes, not records. Each has threads of its own, so that a disk that hangs holds up
neither the loop nor another log.
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
    """Takes batches of lines in order; one call at a time, but for ``apply_retention``."""

    async def open(self) -> None:
        """Open it, or see whether it is still the right one.

        Raises:
            OSError: it cannot be opened now.
        """

    async def append(self, lines: bytes) -> bool:
        """Take all of the lines; says whether it has begun anew, which calls for ``apply_retention``.

        Raises:
            OSError: it did not take them all. The next call has the same lines, and takes what is missing.
        """

    async def reopen(self) -> None:
        """Open it again.

        Raises:
            OSError: it cannot be opened now.
        """

    async def rotate(self) -> bool:
        """Begin anew; says whether there was anything to leave behind.

        Raises:
            OSError: it cannot now.
        """

    async def sync(self) -> None:
        """Wait until what was taken would survive a loss of power.

        Raises:
            OSError: it would not.
        """

    async def apply_retention(self) -> None:
        """Compress and remove renamed files.

        Raises:
            OSError: one of them could not be compressed or removed.
        """

    def close(self) -> None:
        """Let go of what it holds, without waiting."""


class FileSink:
    """A ``LogFile`` in a thread. A cancel leaves the thread behind: a disk that hangs must not hold up the end."""

    def __init__(self, file: LogFile, retention: Retention) -> None:
        self._file = file
        self.path = file.path
        """For people: where what it takes can be read."""
        self._retention = retention
        self._writing = trio.CapacityLimiter(1)
        self._retaining = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Open the file unless it is open and still stands at its path."""
        await self._in_thread(self._file.open)

    async def append(self, lines: bytes) -> bool:
        """Put the lines at the end of the file."""
        before = self._file.rotations
        await self._in_thread(lambda: self._file.append(lines))
        return self._file.rotations != before

    async def reopen(self) -> None:
        """Close the file and open what stands at its path."""
        await self._in_thread(self._file.reopen)

    async def rotate(self) -> bool:
        """Rename the file and open a new one."""
        return await self._in_thread(self._file.rotate)

    async def sync(self) -> None:
        """``fdatasync`` the file."""
        await self._in_thread(self._file.sync)

    async def apply_retention(self) -> None:
        """Compress the renamed files and remove the surplus."""
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
