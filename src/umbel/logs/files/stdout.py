"""The sink for stdout: whole lines from all processes that write there.

All workers inherit one stdout, and several logs of one process may write to it. Their lines stay whole:

* A write holds whole lines and at most ``PIPE_BUF`` bytes, which the kernel does not mix with other writes to a pipe. A
  longer line is written in pieces of that size, which only the locks below keep together.
* The writes of a batch are made under two locks. A record lock (``lockf``) keeps processes apart. It belongs to the
  process; a ``flock`` would belong to the open file, which all workers share. A lock in memory keeps the logs of one
  process apart.
* The waits for the locks and for the reader of a full pipe are bounded. A writable pipe takes ``PIPE_BUF`` bytes
  without a wait, so no write is larger; ``O_NONBLOCK`` would change the open file for all who share it. A reader that
  is too slow is an ``OSError`` like a full disk: the writer tries again, and meanwhile the queue fills and drops. If it
  stops within a longer line, the rest of this line comes first when it reads again; lines of other processes may be
  between the two parts.
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
"""The value of the key ``file`` that means stdout."""
_FD = 1
_LOCK_POLL_S = 0.001
_process_lock = threading.Lock()


class Stdout:
    """Whole lines written to a descriptor, stdout by default. Blocking.

    Before each write, ``append`` waits for the reader for ``WRITE_S_MAX`` at most.
    """

    def __init__(self, descriptor: int = _FD) -> None:
        self._fd = descriptor
        self._bytes_done = 0
        """The number of bytes of a failed batch that have been written."""

    def append(self, lines: bytes) -> None:
        """Write whole lines, each with its line end.

        Raises:
            OSError: not all lines were written. The next call must have the same lines; it writes the missing ones.
        """
        bytes_max = self._write_bytes_max()
        with self._locked():
            while self._bytes_done < len(lines):
                end = min(len(lines), self._bytes_done + bytes_max)
                # Up to the last line that fits into one write, or a piece of a longer line.
                whole = lines.rfind(b"\n", self._bytes_done, end) + 1 or end
                self._wait_until_writable()
                self._bytes_done += os.write(self._fd, lines[self._bytes_done : whole])
        self._bytes_done = 0

    def _write_bytes_max(self) -> int:
        """Return the largest number of bytes that one write of several lines may have.

        Raises:
            OSError: the process was started without stdout, so that its number may be that of another file.
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
        """Take the record lock; False if stdout has no locks, or another process holds it for ``LOCK_S_MAX``."""
        deadline = time.monotonic() + LOCK_S_MAX
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_POLL_S)  # Blocks the sink's thread, never the event loop.
            except OSError:
                return False  # Such as a socket, which has no record locks.
            else:
                return True

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(WRITE_S_MAX * 1000):
            raise BlockingIOError(errno.EAGAIN, "nobody reads stdout")


class StdoutSink:
    """The sink of ``Stdout``, whose writes run in a thread. There is no file, so most methods do nothing.

    A cancel abandons the thread, which may wait for the reader.
    """

    def __init__(self, stdout: Stdout | None = None) -> None:
        self._stdout = stdout or Stdout()
        self._writing = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Do nothing: an unusable stdout fails with the first lines, and does not prevent the start."""

    async def append(self, lines: bytes) -> bool:
        """Write the lines."""
        await trio.to_thread.run_sync(self._stdout.append, lines, abandon_on_cancel=True, limiter=self._writing)
        return False

    async def reopen(self) -> None:
        """Do nothing."""

    async def rotate(self) -> bool:
        """Do nothing; return False."""
        return False

    async def sync(self) -> None:
        """Do nothing: the reader of stdout confirms nothing."""

    async def apply_retention(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: stdout stays open."""
