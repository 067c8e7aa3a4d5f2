"""The sink for stdout: whole lines, whichever processes write there, and bounded waiting where nobody reads.

Several workers inherit one stdout, and several logs of a process may write to it. What keeps their lines whole:

* A write holds whole lines and is small enough for the kernel not to mix it with another one (``PIPE_BUF``). A longer
  line is a write of its own.
* The writes of a batch are made under a record lock. It belongs to the process (``lockf``, not ``flock``), so it works
  although all have inherited the same descriptor; a lock in memory keeps the logs of one process apart.
* Nothing waits without bound: not for the lock, nor for a reader that leaves a pipe full. What is not written in time
  is an error as of a full disk: the writer tries again, and meanwhile the queue fills and drops.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from .file import LOCK_S_MAX, WRITE_S_MAX

STDOUT = "-"
"""The name of stdout in a configuration, in the place of a file."""
_FD = 1
_LOCK_POLL_S = 0.001
_process_lock = threading.Lock()


class Stdout:
    """Writes whole lines to stdout. Blocking, for a few seconds at most."""

    def __init__(self, descriptor: int = _FD) -> None:
        self._fd = descriptor
        self._bytes_done = 0
        """The number of bytes of a failed batch that have been written."""

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: not all lines were written. Called again with the same lines, it writes those that are missing.
        """
        bytes_max = self._write_bytes_max()
        with self._locked():
            while self._bytes_done < len(lines):
                end = min(len(lines), self._bytes_done + bytes_max)
                # Up to the last line that fits, or else one long line.
                whole = lines.rfind(b"\n", self._bytes_done, end) + 1 or lines.find(b"\n", end) + 1 or len(lines)
                self._wait_until_writable()
                self._bytes_done += os.write(self._fd, lines[self._bytes_done : whole])
        self._bytes_done = 0

    def _write_bytes_max(self) -> int:
        """How many bytes of several lines may be one write.

        Raises:
            OSError: the process was started without stdout; another file may have its number by now.
        """
        if self._fd == _FD and sys.__stdout__ is None:
            raise OSError(errno.EBADF, "stdout is closed")
        return sys.maxsize if stat.S_ISREG(os.fstat(self._fd).st_mode) else select.PIPE_BUF

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not _process_lock.acquire(timeout=WRITE_S_MAX):
            raise BlockingIOError(errno.EAGAIN, "another log of this process waits for the reader of stdout")
        try:
            locked = self._lock()
            try:
                yield
            finally:
                if locked:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN)
        finally:
            _process_lock.release()

    def _lock(self) -> bool:
        """Lock stdout against other processes; False if it knows no locks, or another one holds it for too long."""
        deadline = time.monotonic() + LOCK_S_MAX
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_POLL_S)  # In the writer's thread: the loop never comes here.
            except OSError:
                return False  # Stdout knows no locks.
            else:
                return True

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(WRITE_S_MAX * 1000):
            raise BlockingIOError(errno.EAGAIN, "nobody reads stdout")


class StdoutSink:
    """A sink for ``Stdout``, in a thread. There is nothing to open, to rename or to remove.

    A cancel leaves the thread behind, which may wait for a reader.
    """

    def __init__(self, stdout: Stdout | None = None) -> None:
        self._stdout = stdout or Stdout()
        self._writing = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Nothing: a stdout that takes nothing fails with the first lines, and keeps no service from starting."""

    async def append(self, lines: bytes) -> bool:
        """Write the lines."""
        await trio.to_thread.run_sync(self._stdout.append, lines, abandon_on_cancel=True, limiter=self._writing)
        return False

    async def reopen(self) -> None:
        """Nothing: stdout stays what it is."""

    async def rotate(self) -> bool:
        """Nothing: there is no file to rename."""
        return False

    async def sync(self) -> None:
        """Nothing: what reads stdout confirms nothing."""

    async def apply_retention(self) -> None:
        """Nothing: there are no renamed files."""

    def close(self) -> None:
        """Nothing: stdout is the process's."""
