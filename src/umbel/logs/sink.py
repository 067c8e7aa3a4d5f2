"""Where a stream's bytes end up: the Sink protocol, and the file behind it.

Used by the writer alone. A sink knows bytes, not records; it waits in threads so that a slow disk never holds the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import trio

_T = TypeVar("_T")
# Records tell who asked for what: not for everybody's eyes.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


class Sink(Protocol):
    """Takes bytes in order."""

    async def ready(self) -> bool:
        """Make ready to take bytes; True if they will go somewhere else than the last ones did.

        Raises:
            OSError: it cannot take any now.
        """

    async def write(self, data: bytes) -> int:
        """Take a beginning of ``data``, at least one byte; says how many bytes.

        Raises:
            OSError: it took nothing.
        """

    def close(self) -> None:
        """Let go of what it holds, without waiting."""


class FileSink:
    """An append-only file that is opened again whenever its path leads elsewhere.

    Each ``write`` is one ``write(2)`` on an ``O_APPEND`` descriptor, so that several processes may share the file.
    Directories are made as needed. On cancel the thread is left to end alone: a disk that hangs must not hold the
    end of the process. What trio's file objects do, but for that, and for the threads: these have a limiter of their
    own, since address look-ups can use up trio's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._limiter = trio.CapacityLimiter(1)

    async def ready(self) -> bool:
        """Open the file unless it is open and still stands at its path."""
        return await self._in_thread(self._ready)

    async def write(self, data: bytes) -> int:
        """Append a beginning of ``data``."""
        fd = self._fd
        assert fd is not None, "ready() was not called"
        return await self._in_thread(lambda: os.write(fd, data))

    def close(self) -> None:
        """Close the file. A thread that was left behind may still use it: then it stays open until the process ends."""
        if self._fd is not None and self._limiter.borrowed_tokens == 0:
            os.close(self._fd)
            self._fd = None

    def _ready(self) -> bool:
        if self._fd is not None:
            if self._stands(self._fd):
                return False
            os.close(self._fd)
            self._fd = None
        self._path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        return True

    def _stands(self, fd: int) -> bool:
        """Whether the descriptor's file is the one at the path: not removed, renamed or replaced from outside."""
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
