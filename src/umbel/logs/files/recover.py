"""Recovery of the records of a killed process: from its ring into the log. Blocking."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import suppress
from os import PathLike
from pathlib import Path

from ...core.regular_file import kind_of, open_regular
from ..queue import BATCH_BYTES
from .file import LogFile
from .reading import lines_in_file, log_files
from .ring import SUFFIX, directory_of, lines_in_ring, prefix_of
from .rotation import Rotation, began_at

_UNUSED_S_MAX = 60.0
"""Seconds for which an empty file is taken for a ring that is being made."""
_LISTINGS_MAX = 20
"""How often the log's files are listed at most, while other processes rename and compress them."""

_FileId = tuple[Path, int]
"""A file: its path and its inode. A renamed file keeps its inode, and a new file may get that of a removed one."""


def recover(log: str | PathLike[str]) -> int:
    """Append the lines in the rings of dead processes, except for those that are in the log's files already.

    A ring whose owner lives is locked, and is left alone. Returns how many lines were appended.

    Raises:
        OSError: the log cannot be written; the rings are still there.
    """
    path = Path(log).absolute()
    count = 0
    for ring in sorted(directory_of(path).glob(f"{prefix_of(path)}*{SUFFIX}")):
        with suppress(FileNotFoundError, PermissionError):
            # Anybody may put something into /dev/shm.
            if not kind_of(ring.lstat().st_mode):
                count += _recover_ring(ring, path)
    return count


def _recover_ring(ring: Path, log: Path) -> int:
    fd = open_regular(ring, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_nlink == 0:
            return 0
        lines = _lines(fd, status.st_size)
        if not lines and time.time() - status.st_mtime < _UNUSED_S_MAX and not status.st_size:
            return 0
        missing = _missing(lines, log)
        _append(missing, log)
        ring.unlink()
        return len(missing)
    finally:
        os.close(fd)


def _lines(fd: int, size: int) -> list[bytes]:
    if size == 0:
        return []
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        return list(lines_in_ring(data))


def _missing(lines: list[bytes], log: Path) -> list[bytes]:
    """The lines that no file of the log has. Only files that were written to since the first line can have them.

    Other processes may rename or compress a file at any time, also between the listing of the files and the reading of
    it. Then its lines are in a file that is not listed yet. So the files are listed until a listing shows the same
    files as the one before, all of which have been read. Should they change without end, lines are rather written
    twice than lost.
    """
    if not lines:
        return []
    wanted = set(lines)
    since = began_at(lines[0]) - 1
    read: set[_FileId] = set()
    before: list[_FileId] | None = None
    for _ in range(_LISTINGS_MAX):
        listing = _listing(log, since)
        if listing == before:
            break
        before = listing
        for file in listing:
            if file not in read:
                # Not at this path any more: the next listing shows where it is now.
                with suppress(FileNotFoundError), os.fdopen(open_regular(file[0]), "rb") as raw:
                    # As it was opened, which may be another file than the one that was listed.
                    read.add((file[0], os.fstat(raw.fileno()).st_ino))
                    wanted.difference_update(lines_in_file(raw))
    return [line for line in lines if line in wanted]


def _listing(log: Path, since: float) -> list[_FileId]:
    """The log's files that were written to since then."""
    found: list[_FileId] = []
    for path in log_files(log):
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime >= since:
                found.append((path, status.st_ino))
    return found


def _append(lines: list[bytes], log: Path) -> None:
    file = LogFile(log, Rotation())
    batch: list[bytes] = []
    size = 0
    try:
        for line in lines:
            if batch and size + len(line) > BATCH_BYTES:
                file.append(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            file.append(b"".join(batch))
            file.sync()
    finally:
        file.close()
