"""A ring buffer of lines in shared memory, which survives a kill of its process (``ring = true``).

Theory
======

The problem. Lines that wait in the queue are lost if the process is killed (SIGKILL, out of memory). A ring holds a
copy of each waiting line in a memory-mapped file. The kernel keeps the pages after the death of the process. The next
process that opens the log, or the master after the unplanned end of a worker, appends the lines to the log
(``recover.py``).

The file is in ``/dev/shm``, because a store into a mapped page of a disk file can block while the disk hangs. Where
there is no ``/dev/shm``, the file is beside the log, and a store can block. A ring in ``/dev/shm`` survives the death
of its process, but neither a loss of power nor a reboot.

Layout. A header (magic, size, *tail*, the log's path for people) and an area of ``size`` bytes. A *position* is a byte
count that only grows; its place in the area is the position modulo ``size``. ``head`` is the position behind the last
line, ``tail`` the position behind the last line that was released. Each line has a header of its own: its position, its
length and a checksum of its bytes and position. A line does not wrap around the end of the area: the rest of the
area is skipped, and marked by a line header of length 0 where there is room for one.

Appending writes the bytes first and the line header second. ``head`` itself is only in the memory of the process. A
reader begins at ``tail`` and goes on as long as a line header holds exactly the position at which it stands and the
checksum is right. Thus the reader ends

* at a line whose process was killed before the line header was complete;
* behind the last line, since what stands there is zero, an older line with a lower position, or the middle of an older
  line, of which the position or the checksum does not fit.

Invariant: ``head - tail <= size``; a line that would break it is refused (None), so no waiting line is overwritten.

Releasing writes ``tail``, with one copy of its eight bytes. A kill between the write to the log and the release leaves
lines in the ring that are in the log as well; recovery leaves those out, but appends lines that are not JSON a second
time (``recover.py``). So a kill loses no line that ``append`` has accepted. A line that the queue has displaced stays
in the ring, and occupies its room, until a later line is released. So a long stall of the writer can fill the ring
although the queue has room; new lines are dropped then, warnings too, and displace none.

Ownership. The process holds the flock of its ring until ``close``; if it dies before, the kernel releases the lock.
Recovery takes only rings whose lock is free. In ``/dev/shm`` no method blocks, except for the creation. One thread at a
time may call the methods.
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
"""Magic, size of the area, tail, length of the log's path."""
_TAIL_AT = 24
_TAIL = struct.Struct("<Q")
_RECORDS_AT = 4608
_RECORD = struct.Struct("<QII")
"""Position, length (0: the rest of the area is skipped), checksum."""
_PATH_BYTES_MAX = 4096
_MODE = 0o600


class RingError(OSError):
    """A ring cannot be allocated. It names the ring's file, and its text says what to do."""


def directory_of(log: Path) -> Path:
    """Return the directory of a log's rings: ``/dev/shm`` if it exists, otherwise the directory of the log."""
    return MEMORY if MEMORY.is_dir() else log.parent


def prefix_of(log: Path) -> str:
    """Return the common prefix of the file names of a log's rings."""
    return f"umbel-log-{sha256(os.fsencode(log.absolute())).hexdigest()[:16]}-"


class Ring:
    """A ring buffer of the lines that are not written yet, in order; the module's docstring states its rules.

    Args:
        log: the path of the log.
        size: the bytes of the area; all of its pages are allocated now.

    Raises:
        RingError: the file cannot be created, or there is no memory for it.
    """

    def __init__(self, log: Path, size: int) -> None:
        directory = directory_of(log)
        self.path = directory / f"{prefix_of(log)}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self._size = size
        try:
            self._fd, self._map = self._allocate(_RECORDS_AT + size)
        except OSError as error:
            todo = (
                f"make room for {_RECORDS_AT + size} bytes in {directory}, lower max_queue_bytes, or set ring = false"
            )
            raise RingError(error.errno, f"{error.strerror}; {todo}", os.fspath(self.path)) from error
        self._head = 0
        self._tail = 0
        name = os.fsencode(log.absolute())[:_PATH_BYTES_MAX]
        self._map[_HEAD.size : _HEAD.size + len(name)] = name
        _HEAD.pack_into(self._map, 0, _MAGIC, size, 0, len(name))

    def _allocate(self, size: int) -> tuple[int, mmap.mmap]:
        """Create the file and return its descriptor and its memory; if that fails, there is no file."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            # Locked while it is empty: recovery leaves an empty file alone, and so never takes this one for the ring
            # of a dead process. All pages are allocated now: a page that is missing later would be a SIGBUS.
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, size)
            return fd, mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            self.path.unlink(missing_ok=True)
            raise

    def append(self, line: bytes) -> int | None:
        """Copy a line into the ring. Return the mark for ``release`` (the line's end); None if there is no room."""
        length = len(line)
        whole = _RECORD.size + length
        left = self._size - self._head % self._size
        at = self._next_position(whole, left)
        if at + whole - self._tail > self._size:
            return None
        place = _RECORDS_AT + at % self._size
        if left < whole and left >= _RECORD.size:
            _RECORD.pack_into(self._map, _RECORDS_AT + self._head % self._size, self._head, 0, 0)
        # The line header is written last: it makes the bytes before it valid.
        self._map[place + _RECORD.size : place + whole] = line
        _RECORD.pack_into(self._map, place, at, length, crc32(line, at & 0xFFFFFFFF))
        self._head = at + whole
        return self._head

    def has_room(self, size: int) -> bool:
        """Whether ``append`` takes a line of ``size`` bytes."""
        whole = _RECORD.size + size
        at = self._next_position(whole, self._size - self._head % self._size)
        return at + whole - self._tail <= self._size

    def _next_position(self, whole: int, left: int) -> int:
        """Return the position of the next line, of ``whole`` bytes: a line does not wrap around the area's end."""
        return self._head + left if left < whole else self._head

    def release(self, mark: int) -> None:
        """Release all lines that end at the mark or before it: recovery does not read them, and their room is free."""
        self._tail = mark
        # One copy of eight bytes. ``pack_into`` would write zeros first: recovery after a kill between the two would
        # begin at zero and find nothing.
        self._map[_TAIL_AT : _TAIL_AT + _TAIL.size] = _TAIL.pack(mark)

    def close(self) -> None:
        """Close the ring, and remove its file if all lines were released; otherwise recovery takes the others."""
        if self._tail == self._head:
            with suppress(OSError):
                self.path.unlink()
        self._map.close()
        os.close(self._fd)


def lines_in_ring(data: bytes | mmap.mmap) -> Iterator[bytes]:
    """Yield the lines of a dead process's ring that were not released, in order.

    ``data`` is the content of the ring's file. If it is not a ring, nothing is yielded.
    """
    if len(data) < _RECORDS_AT:
        return
    magic, size, at, _ = _HEAD.unpack_from(data, 0)
    if magic != _MAGIC or len(data) < _RECORDS_AT + size:
        return
    end = at + size  # A bound, whatever the file holds.
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
