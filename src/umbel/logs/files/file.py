"""An append-only log file that several processes share and that anybody may rename. Blocking; one call at a time.

Theory
======

The problem. Several workers append to one file, and any of them may rotate it. An operator or logrotate may rename,
remove or truncate it at any time. A process may be killed in the middle of a write, or be stopped (SIGSTOP) while it
holds the lock. Nevertheless lines must not mix, and no line may be lost.

How a batch is appended (``append`` and ``_append_here``):

1.  Take the file's flock, with a wait of about ``LOCK_S_MAX`` at most.
2.  Compare device and inode of the open file with those of the path. If they differ, the file was renamed or removed:
    open the path, and begin again. Rotation and compression take the same lock, so a file that is locked and still at
    its path is neither renamed by a process of the log nor compressed.
3.  With the lock: truncate a torn line that a killed process has left at the end. (The torn line stays if it is longer
    than any record, or if this process may not read the file.) If rotation is due, rename the file, open the new one,
    and begin again. Otherwise write the batch.
4.  Without the lock (its holder is stopped, or the file system has no locks): only write. ``O_APPEND`` keeps the bytes
    of one ``write(2)`` together. Renaming or truncating without the lock could destroy lines of others.
5.  Compare device and inode again. Another program that takes no lock may have renamed the file since step 2, and may
    have compressed it. Then the batch is written to the new file as well: twice is better than lost.

After ``_OPENS_MAX`` rounds the call fails (EBUSY), so that no hostile renaming holds the thread.

A failed write (a full disk). ``_bytes_done`` counts the bytes of the batch that are in the file, and the next
``append``, which must have the same lines, continues there. Whole lines stay. A torn one is truncated if this process
holds the lock and no other process has written behind the line. If it is not truncated, the next call continues the
torn line, if it is still the end of the file. If not, because another file was opened or another process has written
behind it or truncated it, the line is written whole (``_begin_torn_line_again``).

Invariants:

*   Of the processes of the log, only a holder of the lock renames or truncates.
*   Whenever a holder releases the lock, the file ends with a whole line, unless a torn line could not be truncated or a
    process without the lock has written in between. (A holder that is killed may leave a torn line.)
*   Between two calls ``_bytes_done`` is 0, except between a failed ``append`` and the next one that succeeds.
*   ``_clean_at`` is a size at which the file is known to end with a whole line: then step 3 need not read.

Files that are not regular: this process's own stdout or stderr (also if it is a FIFO), and the memory devices
(``/dev/null``), are written without lock, rotation and sync. A write whose reader has stopped fails after
``WRITE_S_MAX``. Anything else is refused, any other FIFO too.

No await, so no cancel. A thread that was abandoned may finish its call at any later time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...core.regular_file import NEVER_WAIT, not_regular
from ..records.encode import RECORD_BYTES_MAX
from .rotation import FIRST_BYTES, Rotation, began_at, rotated_path

LOCK_S_MAX = 1.0
"""Seconds to wait for a lock that another process holds. Then the batch is written without it."""

WRITE_S_MAX = 5.0
"""Seconds for which a pipe or a terminal may take no bytes before a write fails."""

_MEMORY_DEVICES = 1
"""The major number of /dev/null, /dev/zero and /dev/full on Linux."""
# Records hold addresses and paths of requests: others than owner and group must not read them.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750
_LOCK_POLL_S = 0.001
_OPENS_MAX = 10
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


class LogFile:
    """An append-only file that several processes may share; the module's docstring states its rules.

    Args:
        path: the path of the file; missing directories are created.
        rotation: when the file is renamed.
    """

    def __init__(self, path: Path, rotation: Rotation) -> None:
        self.path = path
        self.rotations = 0
        """How often this object has renamed the file."""
        self._rotation = rotation
        self._fd: int | None = None
        self._regular = True
        self._readable = True
        self._identity = 0, 0
        """Device and inode of the open file."""
        self._began_at: float | None = None
        self._clean_at = 0
        """A size at which the file is known to end with a whole line."""
        self._is_new_file = False
        """Whether nothing has been written since the file was opened."""
        self._bytes_done = 0
        """The number of bytes of a failed batch that are in the file."""

    def open(self) -> None:
        """Open the file at the path, unless it is open already. Missing directories and the file are created.

        Raises:
            OSError: it cannot be opened, or is a kind of file that is refused.
        """
        if self._fd is not None:
            if self._size_at_path() is not None:
                return
            self.close()
        self.path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        flags = os.O_APPEND | os.O_CREAT | NEVER_WAIT
        self._regular = True
        with suppress(FileNotFoundError):
            self._regular = _is_regular(self.path.stat(), self.path)
        self._readable = self._regular
        try:
            fd = os.open(self.path, flags | (os.O_RDWR if self._regular else os.O_WRONLY), _FILE_MODE)
        except PermissionError:
            fd = os.open(self.path, flags | os.O_WRONLY, _FILE_MODE)
            self._readable = False
        status = os.fstat(fd)
        try:
            self._regular = _is_regular(status, self.path)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._identity = status.st_dev, status.st_ino
        self._began_at = None
        self._clean_at = 0
        self._is_new_file = True

    def append(self, lines: bytes) -> None:
        """Append whole lines, each with its line end.

        Raises:
            OSError: not all lines were written. The next call must have the same lines; it writes the missing ones.
        """
        # As few system calls as possible: each releases the GIL, and a busy event loop keeps it for milliseconds.
        if self._fd is None or not self._regular:
            self.open()
        if not self._regular:
            self._begin_torn_line_again(None, lines)
            self._write(lines)
            return
        for _ in range(_OPENS_MAX):
            if self._append_here(lines):
                return
            # The file is no longer at the path: the lines go to the new file, and may be in both.
            self.open()
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.path))

    def rotate(self) -> bool:
        """Rename the file now, and open a new one; return whether the file was renamed.

        It is not renamed if it is empty or not regular, if another process has renamed it meanwhile, or if its lock is
        not free in time.

        Raises:
            OSError: it cannot be opened or renamed.
        """
        self.open()
        with self._locked() as locked:
            size = self._size_at_path()
            if not locked or not size:  # Empty, or already renamed by another process.
                return False
            self._rename()
        self.open()
        return True

    def reopen(self) -> None:
        """Close the file and open the file at its path, which may be another one.

        Raises:
            OSError: it cannot be opened.
        """
        self.close()
        self.open()

    def sync(self) -> None:
        """Wait until the disk has confirmed all written lines (``fdatasync``).

        Raises:
            OSError: the disk does not confirm it.
        """
        if self._fd is not None and self._regular:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    @property
    def _descriptor(self) -> int:
        assert self._fd is not None, "open() was not called"
        return self._fd

    def _append_here(self, lines: bytes) -> bool:
        """Append to the open file; False if the lines must be appended again, to the file that is now at the path."""
        with self._locked() as locked:
            size = self._size_at_path()
            if size is None:
                return False
            self._begin_torn_line_again(size, lines)
            if not locked:
                self._write(lines)
            else:
                size = self._without_torn_line(size, lines)
                if self._due(size, len(lines)):
                    self._rename()
                    return False
                done = self._bytes_done
                self._write_or_truncate(size, lines)
                self._clean_at = size + len(lines) - done
            # Still under the lock: a moment later another process may rotate the file, with these lines in it.
            return self._size_at_path() is not None

    def _size_at_path(self) -> int | None:
        """Return the size of the open file; None if it is no longer the file at the path."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if (status.st_dev, status.st_ino) == self._identity else None

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the file's lock during the block; gives False if it was not free in time or the file has no locks."""
        fd = self._descriptor
        locked = self._regular and self._lock(fd)
        try:
            yield locked
        finally:
            if locked:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _lock(self, fd: int) -> bool:
        deadline = time.monotonic() + LOCK_S_MAX
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # If the holder has renamed the file, this lock is of no use any more.
                if self._size_at_path() is None or time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_POLL_S)  # Blocks the sink's thread, never the event loop.
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return False
            else:
                return True

    def _begin_torn_line_again(self, size: int | None, lines: bytes) -> None:
        """Arrange that a torn line of the batch is written whole, unless it ends the open file.

        Args:
            size: the size of the open file; None if it is not regular.
            lines: the batch.
        """
        # A write with O_APPEND leaves the descriptor's position behind its bytes.
        moved = self._bytes_done and size is not None and size != os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if self._is_new_file or moved:
            self._bytes_done = lines.rfind(b"\n", 0, self._bytes_done) + 1
            self._is_new_file = False

    def _without_torn_line(self, size: int, lines: bytes) -> int:
        """Truncate a torn line at the end of the file; return the file's size. The lock must be held."""
        fd = self._descriptor
        if self._bytes_done and not lines.endswith(b"\n", 0, self._bytes_done):
            return size  # The torn line is of this batch: the write continues it.
        if size in (0, self._clean_at) or not self._readable or os.pread(fd, 1, size - 1) == b"\n":
            return size
        start = max(0, size - RECORD_BYTES_MAX)
        last = os.pread(fd, size - start, start).rfind(b"\n")
        if last < 0 and start > 0:
            return size  # Longer than any record: not written by this class, so left alone.
        os.ftruncate(fd, start + last + 1)
        return start + last + 1

    def _due(self, size: int, more: int) -> bool:
        if self._rotation.every is not None and self._began_at is None and size and self._readable:
            self._began_at = began_at(os.pread(self._descriptor, FIRST_BYTES, 0))
        return self._rotation.due(size, more, self._began_at, time.time())

    def _rename(self) -> None:
        """Rename the file; the next ``open`` creates a new one. The lock must be held."""
        target = rotated_path(self.path, time.time())
        while target.exists():
            target = rotated_path(self.path, time.time())
        self.path.rename(target)
        self.rotations += 1

    def _write_or_truncate(self, size: int, lines: bytes) -> None:
        """Write the lines to a file of ``size`` bytes; truncate a torn one after an error. The lock must be held."""
        before = self._bytes_done
        try:
            self._write(lines)
        except OSError:
            # Other processes append behind a torn line. The size tells whether one of them already has.
            fd, whole = self._descriptor, lines.rfind(b"\n", 0, self._bytes_done) + 1
            if whole < self._bytes_done and os.fstat(fd).st_size == size + self._bytes_done - before:
                with suppress(OSError):
                    os.ftruncate(fd, size + whole - before)
                    self._bytes_done = whole
            raise

    def _write(self, lines: bytes) -> None:
        """Write the missing bytes of the lines; after an error ``_bytes_done`` says how many are in the file."""
        fd = self._descriptor
        while self._bytes_done < len(lines):
            try:
                self._bytes_done += os.write(fd, lines[self._bytes_done :] if self._bytes_done else lines)
            except BlockingIOError:
                # A terminal or a full pipe: the thread must not wait for the reader without bound.
                if not _is_writable_in_time(fd):
                    raise
        self._bytes_done = 0


def _is_regular(status: os.stat_result, path: Path) -> bool:
    """Whether a file is regular; False for this process's stdout and stderr, and for devices such as /dev/null.

    Raises:
        OSError: it is any other kind of file.
    """
    if stat.S_ISREG(status.st_mode):
        return True
    if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _MEMORY_DEVICES:
        return False
    for standard in (1, 2):
        with suppress(OSError):
            if os.path.samestat(status, os.fstat(standard)):
                return False
    raise not_regular(status.st_mode, path)


def _is_writable_in_time(fd: int) -> bool:
    """Wait until the descriptor takes bytes, at most ``WRITE_S_MAX``; return whether it does."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(WRITE_S_MAX * 1000))
