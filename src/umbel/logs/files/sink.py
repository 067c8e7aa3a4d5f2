"""Sinks: the interface of a log's destination, and the sink of a file.

The blocking work is done in threads. Each file sink has at most two at a time (one for lines, one for retention), so
that a disk that hangs blocks neither the event loop nor another log.
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
    """The destination of a log's lines.

    One call at a time; only ``apply_retention`` may run beside another call. A cancel ends a call at once, and it is
    then unknown whether the call took effect; after a cancel only ``close`` may be called.
    """

    async def open(self) -> None:
        """Open the destination. If it is open, check that it is still the right one.

        Raises:
            OSError: it cannot be opened.
        """

    async def append(self, lines: bytes) -> bool:
        """Append whole lines; return whether a file was renamed, so that ``apply_retention`` is due.

        Raises:
            OSError: not all lines were written. The next call must have the same lines; it writes the missing ones.
        """

    async def reopen(self) -> None:
        """Close the destination and open it again.

        Raises:
            OSError: it cannot be opened.
        """

    async def rotate(self) -> bool:
        """Rename the file and begin a new one; return whether a file was renamed.

        Raises:
            OSError: it cannot be renamed.
        """

    async def sync(self) -> None:
        """Wait until the disk has confirmed the appended lines, so that they survive a loss of power.

        Raises:
            OSError: the disk did not confirm them.
        """

    async def apply_retention(self) -> None:
        """Compress and remove renamed files.

        Raises:
            OSError: one of them could not be compressed or removed.
        """

    def close(self) -> None:
        """Close the destination, without waiting."""


class FileSink:
    """The sink of a ``LogFile``, whose work runs in threads. A cancel abandons the thread, which a disk may block."""

    def __init__(self, file: LogFile, retention: Retention) -> None:
        self._file = file
        self.path = file.path
        """The path of the file, for messages."""
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
        """Close the file, unless an abandoned thread still uses it: then it stays open until the process ends."""
        if self._writing.borrowed_tokens == 0:
            self._file.close()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._writing)
