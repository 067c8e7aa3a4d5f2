"""A ring of lines in shared memory, which outlives the process that is killed: ``ring = true``.

Filled by the queue, read by ``recover.py`` when its owner is dead. A file in memory (``/dev/shm``), because the pages
of a file on a disk that hangs would hold up whoever writes into them.
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
"""Magic, size of the ring, where the first line stands that is not written, length of the log's path."""
_TAIL_AT = 24
_TAIL = struct.Struct("<Q")
_RECORDS_AT = 4608
_RECORD = struct.Struct("<QII")
"""Where it stands (ever growing, so that an older round is told apart), its length, its checksum."""
_PATH_BYTES_MAX = 4096
_MODE = 0o600


def directory_of(log: Path) -> Path:
    """Where the rings of a log are: in memory where the system has that, else beside the log."""
    return MEMORY if MEMORY.is_dir() else log.parent


def prefix_of(log: Path) -> str:
    """How the names of a log's rings begin."""
    return f"umbel-log-{sha256(os.fsencode(log.absolute())).hexdigest()[:16]}-"


class Ring:
    """The lines that are not written yet, in the order of their coming. Locked for as long as its owner lives.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, log: Path, size: int) -> None:
        directory = directory_of(log)
        self.path = directory / f"{prefix_of(log)}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._size = size
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            # Locked before it can be taken for a dead one's; and all of it is claimed now: a page that cannot be had
            # later would be a SIGBUS.
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

    def keep(self, line: bytes) -> int | None:
        """Keep a line: first its bytes, then what makes it valid. None if there is no room."""
        at, length = self._head, len(line)
        whole = _RECORD.size + length
        left = self._size - at % self._size
        if left < whole:  # it must not go around the end
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

    def let_go(self, mark: int) -> None:
        """What stands before the mark is written."""
        self._tail = mark
        _TAIL.pack_into(self._map, _TAIL_AT, mark)

    def close(self) -> None:
        """Remove it if all its lines are written; else the next start finds those that were given up."""
        if self._tail == self._head:
            with suppress(OSError):
                self.path.unlink()
        self._map.close()
        os.close(self._fd)


def lines_in_ring(data: bytes | mmap.mmap) -> Iterator[bytes]:
    """The whole lines of a dead process's ring, from the first that it had not seen written."""
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
