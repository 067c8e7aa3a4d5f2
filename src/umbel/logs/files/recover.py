"""Recovery of the records of a killed process: from its ring into the log. Blocking.

Each ring is taken by one process, under the ring's flock, and removed after its lines are in the log and synced. A
process that is killed meanwhile leaves the ring, and the next recovery finds which lines are in the log already.
"""

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
"""Seconds for which an empty file may be a ring that another process is about to lock."""
_LISTINGS_MAX = 20
"""The largest number of listings of the log's files, while other processes rename and compress them."""

_FileId = tuple[Path, int]
"""The path and the inode of a file. Neither is enough: a rename changes the path, and inodes are used again."""


def recover(log: str | PathLike[str]) -> int:
    """Append to ``log`` the lines in the rings of dead processes, except for records that its files hold already.

    Lines that are not JSON have no sequence number, so equal ones cannot be told apart: they are all appended, and the
    batch that was being written at the kill may be in the log twice.

    A ring is removed after its lines are in the log. The ring of a living process, which is locked, and the rings of
    other users are left alone. Returns the number of appended lines.

    Raises:
        OSError: the log cannot be read or written. The rings that are left are kept.
    """
    path = Path(log).absolute()
    count = 0
    for ring in sorted(directory_of(path).glob(f"{prefix_of(path)}*{SUFFIX}")):
        with suppress(FileNotFoundError, PermissionError):
            # Any user may create files in /dev/shm: only regular files of this user are read.
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
        if status.st_uid != os.geteuid() or status.st_nlink == 0:  # 0: another recovery has just removed it.
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
    """Return the lines that no file of the log holds. Only files written to since the first line can hold them.

    Another process may rename or compress a file between the listing of the files and the reading of this one. Its
    lines are then in a file that the listing does not show. So the files are listed again until a listing equals the
    previous one, whose files have all been read. If they never stop changing, a line may be appended twice; none is
    lost.
    """
    if not lines:
        return []
    wanted = {line for line in lines if _is_numbered(line)}
    if not wanted:
        return lines
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
                # FileNotFoundError: it was renamed, and the next listing shows its new path.
                with suppress(FileNotFoundError), os.fdopen(open_regular(file[0]), "rb") as raw:
                    # The inode of the opened file: it may be another one than the listing shows.
                    read.add((file[0], os.fstat(raw.fileno()).st_ino))
                    wanted.difference_update(lines_in_file(raw))
    return [line for line in lines if line in wanted or not _is_numbered(line)]


def _is_numbered(line: bytes) -> bool:
    return line.startswith(b"{")


def _listing(log: Path, since: float) -> list[_FileId]:
    """Return the log's files that were written to since the time ``since``."""
    found: list[_FileId] = []
    for path in log_files(log):
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime >= since:
                found.append((path, status.st_ino))
    return found


def _append(lines: list[bytes], log: Path) -> None:
    """Append the lines in batches, and sync them: the ring is removed next."""
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
