"""An append-only log file, which other processes may share and anybody may rename. Blocking; one call at a time."""

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
"""Seconds to wait for another process's lock; then the write goes on without it, since that process may be stopped."""

WRITE_S_MAX = 5.0
"""Seconds for which a pipe or a terminal may take nothing before a write fails."""

_MEMORY_DEVICES = 1
"""The major number of /dev/null, /dev/zero and /dev/full on Linux."""
# Records have addresses and paths of requests: readable by owner and group only.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750
_LOCK_POLL_S = 0.001
_OPENS_MAX = 10
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


class LogFile:
    """An append-only file that several processes may share.

    * A batch is one ``write(2)`` on an ``O_APPEND`` descriptor, under the file's flock. A line for
      which the disk has no room is truncated as a whole, and so is the torn line of a process that was killed.
    * Under the same lock the file is renamed when that is due (``rotation``), and each process checks that the file
      that it has locked is still at the path. So nobody writes into a renamed file, which may be compressed at once.
    * A file that an operator or another program renames is noticed before and after each batch.
    """

    def __init__(self, path: Path, rotation: Rotation) -> None:
        self.path = path
        self.rotations = 0
        self._rotation = rotation
        self._fd: int | None = None
        self._regular = True
        self._readable = True
        self._identity = 0, 0
        """Device and inode of the open file."""
        self._began_at: float | None = None
        self._clean_at = 0
        """A size at which the file ends with a whole line."""
        self._is_new_file = False
        self._bytes_done = 0
        """The number of bytes of a failed batch that are in the file."""

    def open(self) -> None:
        """Open the file unless it is open and still at its path.

        Raises:
            OSError: it cannot be opened now, or is neither a regular file nor where this process may write lines.
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
        """Put whole lines at the end.

        Raises:
            OSError: not all of them are there. Called again with the same lines, it puts only what is missing.
        """
        # Each system call releases the GIL, and a busy loop returns it after milliseconds: as few as can be.
        if self._fd is None or not self._regular:
            self.open()
        if not self._regular:
            self._write(lines)
            return
        for _ in range(_OPENS_MAX):
            if self._append_here(lines):
                return
            # Renamed or removed without our lock, maybe while we wrote, and maybe compressed by now: rather are the
            # lines written twice than lost.
            self.open()
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.path))

    def rotate(self) -> bool:
        """Rename the file now, unless it is empty; return whether it was renamed.

        Raises:
            OSError: it cannot be opened, locked or renamed now.
        """
        self.open()
        with self._locked() as locked:
            size = self._size_at_path()
            if not locked or not size:
                return False
            self._rename()
        self.open()
        return True

    def reopen(self) -> None:
        """Close the file and open the file at its path."""
        self.close()
        self.open()

    def sync(self) -> None:
        """Wait until the disk has confirmed what was written.

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
        """Append to the open file; False if it is not, or no more, the file at the path, or has just been renamed."""
        with self._locked() as locked:
            size = self._size_at_path()
            if size is None:
                return False
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
            # Checked under the lock: without it another process may rename the file, with these lines in it.
            return self._size_at_path() is not None

    def _size_at_path(self) -> int | None:
        """Return the size of the open file if it is still at the path; None if it was removed, renamed or replaced."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if (status.st_dev, status.st_ino) == self._identity else None

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the open file; gives False if its holder does not release it, or the file cannot be locked."""
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
                # If its holder has renamed the file, there is nothing to wait for.
                if self._size_at_path() is None or time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_POLL_S)  # In the writer's thread: the loop never comes here.
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return False
            else:
                return True

    def _without_torn_line(self, size: int, lines: bytes) -> int:
        """Truncate the beginning of a line that a killed process left at the end; return the file's size."""
        fd = self._descriptor
        if self._bytes_done and not lines.endswith(b"\n", 0, self._bytes_done):
            return size  # The beginning is ours, and is continued.
        if size in (0, self._clean_at) or not self._readable or os.pread(fd, 1, size - 1) == b"\n":
            return size
        start = max(0, size - RECORD_BYTES_MAX)
        last = os.pread(fd, size - start, start).rfind(b"\n")
        if last < 0 and start > 0:
            return size  # Longer than any line of ours.
        os.ftruncate(fd, start + last + 1)
        return start + last + 1

    def _due(self, size: int, more: int) -> bool:
        if self._rotation.every is not None and self._began_at is None and size and self._readable:
            self._began_at = began_at(os.pread(self._descriptor, FIRST_BYTES, 0))
        return self._rotation.due(size, more, self._began_at, time.time())

    def _rename(self) -> None:
        """Rename the file, which must be locked; the next ``open`` makes a new one."""
        target = rotated_path(self.path, time.time())
        while target.exists():
            target = rotated_path(self.path, time.time())
        self.path.rename(target)
        self.rotations += 1

    def _write_or_truncate(self, size: int, lines: bytes) -> None:
        before = self._bytes_done
        try:
            self._write(lines)
        except OSError:
            # Whole lines stay. A torn one is truncated, since other processes append behind it.
            fd, whole = self._descriptor, lines.rfind(b"\n", 0, self._bytes_done) + 1
            if whole < self._bytes_done and os.fstat(fd).st_size == size + self._bytes_done - before:
                with suppress(OSError):
                    os.ftruncate(fd, size + whole - before)
                    self._bytes_done = whole
            raise

    def _write(self, lines: bytes) -> None:
        """Write what is missing of the lines; after an error ``_bytes_done`` says how many bytes are in the file."""
        fd = self._descriptor
        if self._is_new_file:  # A line that was torn in the last file is written whole in this one.
            self._bytes_done = lines.rfind(b"\n", 0, self._bytes_done) + 1
            self._is_new_file = False
        while self._bytes_done < len(lines):
            try:
                self._bytes_done += os.write(fd, lines[self._bytes_done :] if self._bytes_done else lines)
            except BlockingIOError:
                # A terminal or a full pipe: the thread must not wait for its reader without bound.
                if not _is_writable_in_time(fd):
                    raise
        self._bytes_done = 0


def _is_regular(status: os.stat_result, path: Path) -> bool:
    """Whether a file is regular; False for this process's stdout and stderr, and for devices such as /dev/null.

    Raises:
        OSError: it is anything else. A FIFO, for one, blocks as soon as its reader stops reading.
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
    """Wait up to ``WRITE_S_MAX`` until something can be written; return whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(WRITE_S_MAX * 1000))
