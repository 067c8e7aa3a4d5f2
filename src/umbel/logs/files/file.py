"""The file behind a log: whole batches at its end, whatever other processes, an operator or the disk do to it.

Used in a thread, one call at a time: everything here may block. It knows bytes and lines, not records.
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
from .rotation import FIRST_BYTES, Rotation, began_at, rotated

LOCK_S_MAX = 1.0
"""How long another process may hold the file before we write without its consent: it may be stopped."""

WRITE_S_MAX = 5.0
"""How long a pipe or a terminal may take nothing before a write fails."""

_MEMORY_DEVICES = 1
"""The major number of /dev/null, /dev/zero and /dev/full on Linux."""
# Records tell who asked for what: not for everybody's eyes.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750
_LOCK_POLL_S = 0.001
_OPENS_MAX = 10
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


class LogFile:
    """An append-only file that several processes may share, and that is followed to wherever its path leads.

    * A batch is one ``write(2)`` on an ``O_APPEND`` descriptor, under the file's flock. A line that finds no
      room is taken back as a whole, and so is the torn line of a process that was killed while it wrote.
    * Under the same lock the file is renamed when it is due (``rotation``), and each process looks whether the file
      that it has locked is still the one at the path. So nobody writes into a renamed file, and it may be compressed
      at once.
    * Someone who renames it without asking is found out before the next batch, and after each.
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
        """A size at which the file is known to end with a whole line."""
        self._another = False
        self._done = 0
        """Of a batch that failed in the middle: how much is in the file."""

    def open(self) -> None:
        """Open the file unless it is open and still stands at its path.

        Raises:
            OSError: it cannot be opened now, or is neither a regular file nor where this process may write lines.
        """
        if self._fd is not None:
            if self._standing() is not None:
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
        self._another = True

    def append(self, lines: bytes) -> None:
        """Put whole lines at the end.

        Raises:
            OSError: not all of them are there. Called again with the same lines, it puts only what is missing.
        """
        # Each system call gives up the interpreter's lock, and a busy loop takes milliseconds to hand it back: as few
        # as can be.
        if self._fd is None or not self._regular:
            self.open()
        if not self._regular:
            self._write(lines)
            return
        for _ in range(_OPENS_MAX):
            if self._append_here(lines):
                return
            # Renamed or removed, maybe while we wrote, by someone who does not ask and who may be compressing it by
            # now: then rather twice than not at all.
            self.open()
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.path))

    def rotate(self) -> bool:
        """Rename the file now, unless it is empty; says whether it was renamed.

        Raises:
            OSError: it cannot be opened, locked or renamed now.
        """
        self.open()
        with self._locked() as locked:
            size = self._standing()
            if not locked or not size:
                return False
            self._rename()
        self.open()
        return True

    def reopen(self) -> None:
        """Close the file and open what stands at its path."""
        self.close()
        self.open()

    def sync(self) -> None:
        """Wait until the disk has confirmed what was written.

        Raises:
            OSError: it does not.
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
        """Append to the open file; False if that is not, or not any more, the one at the path, or is to be renamed."""
        with self._locked() as locked:
            size = self._standing()
            if size is None:
                return False
            if not locked:
                self._write(lines)
            else:
                size = self._mended(size, lines)
                if self._due(size, len(lines)):
                    self._rename()
                    return False
                done = self._done
                self._write_or_take_back(size, lines)
                self._clean_at = size + len(lines) - done
            # Asked while the lock is held: as soon as it is not, another process of ours may rename the file, with
            # these lines in it.
            return self._standing() is not None

    def _standing(self) -> int | None:
        """The size of the open file if it is the one at the path; None if it was removed, renamed or replaced."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if (status.st_dev, status.st_ino) == self._identity else None

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """The open file under lock; False where that cannot be had, because its holder is stopped, or by its nature."""
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
                # Its holder may be renaming it: then there is nothing to wait for.
                if self._standing() is None or time.monotonic() > deadline:
                    return False
                time.sleep(_LOCK_POLL_S)  # In the writer's thread: the loop never comes here.
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return False
            else:
                return True

    def _mended(self, size: int, lines: bytes) -> int:
        """The file's size, without the beginning of a line that a killed process left at its end."""
        fd = self._descriptor
        if self._done and not lines.endswith(b"\n", 0, self._done):
            return size  # the beginning is ours, and goes on
        if size in (0, self._clean_at) or not self._readable or os.pread(fd, 1, size - 1) == b"\n":
            return size
        start = max(0, size - RECORD_BYTES_MAX)
        last = os.pread(fd, size - start, start).rfind(b"\n")
        if last < 0 and start > 0:
            return size  # not of our making
        os.ftruncate(fd, start + last + 1)
        return start + last + 1

    def _due(self, size: int, more: int) -> bool:
        if self._rotation.every is not None and self._began_at is None and size and self._readable:
            self._began_at = began_at(os.pread(self._descriptor, FIRST_BYTES, 0))
        return self._rotation.due(size, more, self._began_at, time.time())

    def _rename(self) -> None:
        """Rename the file, which we have locked, and let go of it; the next ``open`` makes a new one."""
        target = rotated(self.path, time.time())
        while target.exists():
            target = rotated(self.path, time.time())
        self.path.rename(target)
        self.rotations += 1

    def _write_or_take_back(self, size: int, lines: bytes) -> None:
        before = self._done
        try:
            self._write(lines)
        except OSError:
            # The lines that are whole stay, the one that is not goes: other processes write behind it.
            fd, whole = self._descriptor, lines.rfind(b"\n", 0, self._done) + 1
            if whole < self._done and os.fstat(fd).st_size == size + self._done - before:
                with suppress(OSError):
                    os.ftruncate(fd, size + whole - before)
                    self._done = whole
            raise

    def _write(self, lines: bytes) -> None:
        """Write what is missing of the lines; ``_done`` tells how far an error let it come."""
        fd = self._descriptor
        if self._another:  # a line that was cut in the last file is written whole in this one
            self._done = lines.rfind(b"\n", 0, self._done) + 1
            self._another = False
        while self._done < len(lines):
            try:
                self._done += os.write(fd, lines[self._done :] if self._done else lines)
            except BlockingIOError:
                # A terminal or a pipe that its reader leaves full: the thread must come back.
                if not _takes_more(fd):
                    raise
        self._done = 0


def _is_regular(status: os.stat_result, path: Path) -> bool:
    """Whether it is a regular file; False for this process's stdout and stderr, and for devices such as /dev/null.

    Raises:
        OSError: it is anything else. A FIFO would be written to for as long as somebody reads, and then held up.
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


def _takes_more(fd: int) -> bool:
    """Wait a moment until something can be written; False if nothing can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(WRITE_S_MAX * 1000))
