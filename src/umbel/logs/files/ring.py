"""A ring buffer of lines in shared memory, which survives a kill of its process: ``ring = true``.

The next start of any process of the log reads it (``recover.py``). The ring is a file in ``/dev/shm``, because a write
to a mapped file on a disk that hangs can block.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from zlib import crc32

MEMORY = Path("/dev/shm")
SUFFIX = ".ring"

_MAGIC = b"umbelring1\0\0\0\0\0\0"
_HEAD = struct.Struct("<16sQQH")
"""Magic, size of the ring, position of the first line that is not written, length of the log's path (for people)."""
_TAIL_AT = 24
_TAIL = struct.Struct("<Q")
_RECORDS_AT = 4608
_RECORD = struct.Struct("<QII")
"""Position (ever growing, so that a record of an earlier round is recognised), length, checksum."""
_PATH_BYTES_MAX = 4096
_MODE = 0o600


def directory_of(log: Path) -> Path:
    """Return the directory of a log's rings: /dev/shm where there is one, else the log's own."""
    return MEMORY if MEMORY.is_dir() else log.parent


def prefix_of(log: Path) -> str:
    """Return the prefix of the names of a log's rings."""
    return f"umbel-log-{sha256(os.fsencode(log.absolute())).hexdigest()[:16]}-"


class Ring:
    """A ring buffer of the lines that are not written yet, in order. Its file is locked as long as its owner lives.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, log: Path, size: int) -> None:
        directory = directory_of(log)
        self.path = directory / f"{prefix_of(log)}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._size = size
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            # Locked while it is still empty, so that nobody takes it for the ring of a dead process. All pages are
            # allocated now: a page that cannot be allocated later would be a SIGBUS.
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, _RECORDS_AT + size)
            self._map = mmap.mmap(fd, _RECORDS_AT + size)
        except BaseException:
            os.close(fd)
            self.path.unlink(missing_ok=True)
            raise
        self._fd = fd
        self._head = 0
        self._tail = 0
        name = os.fsencode(log.absolute())[:_PATH_BYTES_MAX]
        self._map[_HEAD.size : _HEAD.size + len(name)] = name
        _HEAD.pack_into(self._map, 0, _MAGIC, size, 0, len(name))

    def append(self, line: bytes) -> int | None:
        """Keep a line; return the mark that releases it. None if there is no room.

        The bytes are written first and the header that makes them valid last, so that a kill in between leaves no torn
        line.
        """
        at, length = self._head, len(line)
        whole = _RECORD.size + length
        left = self._size - at % self._size
        if left < whole:  # A record does not wrap around the end.
            at += left
        if at + whole - self._tail > self._size:
            return None
        place = _RECORDS_AT + at % self._size
        if left < whole and left >= _RECORD.size:
            _RECORD.pack_into(self._map, _RECORDS_AT + self._head % self._size, self._head, 0, 0)
        self._map[place + _RECORD.size : place + whole] = line
        _RECORD.pack_into(self._map, place, at, length, crc32(line, at & 0xFFFFFFFF))
        self._head = at + whole
        return self._head

    def release(self, mark: int) -> None:
        """Release everything before the mark: it is written."""
        self._tail = mark
        _TAIL.pack_into(self._map, _TAIL_AT, mark)

    def close(self) -> None:
        """Remove the ring if all lines are written; else the next start recovers those that are not."""
        if self._tail == self._head:
            with suppress(OSError):
                self.path.unlink()
        self._map.close()
        os.close(self._fd)


def lines_in_ring(data: bytes | mmap.mmap) -> Iterator[bytes]:
    """Yield the valid lines of a dead process's ring, from the first that was not released."""
    if len(data) < _RECORDS_AT:
        return
    magic, size, at, _ = _HEAD.unpack_from(data, 0)
    if magic != _MAGIC or len(data) < _RECORDS_AT + size:
        return
    end = at + size
    while at < end:
        left = size - at % size
        place = _RECORDS_AT + at % size
        if left < _RECORD.size:
            at += left
            continue
        stands, length, checksum = _RECORD.unpack_from(data, place)
        if stands != at or length + _RECORD.size > left:
            return
        if length == 0:
            at += left
            continue
        line = bytes(data[place + _RECORD.size : place + _RECORD.size + length])
        if crc32(line, at & 0xFFFFFFFF) != checksum:
            return
        yield line
        at += _RECORD.size + length
