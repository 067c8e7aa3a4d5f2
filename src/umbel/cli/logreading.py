"""The records of a log, from all of its files, and those that come.

It reads only; a line that is no record is passed on as text.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..logs.reading import LINE_BYTES_MAX, family, lines_of
from ..regular import open_regular
from .logwhere import MISSING, field_of, find, parse

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its text, and its record, which is empty if it is none."""

    text: str
    record: dict[str, Any] = field(default_factory=dict)


def line_of(data: bytes) -> Line:
    """A line of a file."""
    try:
        record = msgspec.json.decode(data)
    except msgspec.DecodeError:
        record = None
    return Line(data.decode("utf-8", "backslashreplace").rstrip("\n"), record if isinstance(record, dict) else {})


class Search:
    """What is wanted of a log, and whether any of it was found.

    Args:
        conditions: as of ``logwhere.parse``; a line that is wanted meets all of them.
        counted: a field whose values are counted; that no line has it is told too.

    Raises:
        ValueError: one of them is no condition.
    """

    def __init__(self, conditions: Iterable[str] = (), counted: str | None = None) -> None:
        self._tests = [parse(condition) for condition in conditions]
        self._unseen = dict.fromkeys(map(field_of, conditions))
        self._uncounted = counted
        self._read = self._found = 0
        self._unreadable = False

    def wanted(self, line: Line) -> bool:
        """Whether a line meets the conditions."""
        self._read += 1
        for name in [name for name in self._unseen if find(line.record, name) is not MISSING]:
            del self._unseen[name]
        if self._uncounted is not None and find(line.record, self._uncounted) is not MISSING:
            self._uncounted = None
        met = all(test(line.record) for test in self._tests)
        self._found += met
        return met

    def complain(self, path: Path, error: OSError | EOFError) -> None:
        """Tell that a file cannot be read."""
        self._unreadable = True
        print(f"{path}: {_why(error)}", file=sys.stderr)

    def failure(self) -> str | None:
        """Why nothing was found, in a sentence; None if something was, or if nothing is as it should be."""
        if self._read and self._uncounted is not None:
            return f"none of {self._read} records has a field {self._uncounted}"
        if self._found or not (self._read or self._unreadable):
            return None
        if not self._read:
            return "nothing of this log can be read"
        if self._unseen:
            return f"none of {self._read} records has a field {' or '.join(self._unseen)}"
        return f"none of {self._read} records meets every condition"


def records(log: Path, search: Search) -> Iterator[Line]:
    """Every line of every file of a log, the oldest file first. What cannot be read is told on stderr and left out."""
    for path in family(log):
        try:
            for data in lines_of(path):
                yield line_of(data)
        except FileNotFoundError:
            continue  # compressed or removed in the meantime
        except (OSError, EOFError) as error:
            search.complain(path, error)


def _why(error: OSError | EOFError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def last(log: Path, count: int, search: Search, *, upto: int | None = None) -> list[Line]:
    """The last lines that are wanted, from as few files as needed; of the log itself only the first ``upto`` bytes."""
    found: deque[Line] = deque(maxlen=count)
    for path in reversed(family(log)) if count else ():
        mine: deque[Line] = deque(maxlen=count - len(found))
        read = 0
        try:
            for data in lines_of(path):
                read += len(data)
                if path == log and upto is not None and read > upto:
                    break
                line = line_of(data)
                if search.wanted(line):
                    mine.append(line)
        except (OSError, EOFError) as error:
            search.complain(path, error)
        found.extendleft(reversed(mine))
        if len(found) == count:
            break
    return list(found)


class Follower:
    """What comes into a log from now on, across rotation and truncation."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._fd: int | None = None
        self._rest = b""
        self._refusal = ""
        """Why it could not be opened the last time."""
        self.position = 0
        """How far the file has been read; begins at the end of its last whole line."""
        self._open()
        if self._fd is not None:
            self.position = _whole(self._fd)

    def lines(self, sleep: Callable[[float], None] = time.sleep) -> Iterator[Line]:
        """The lines as they come, without end."""
        while True:
            yield from self.read()
            sleep(POLL_S)

    def read(self) -> Iterator[Line]:
        """What has come since the last time; of a file that was renamed first all that is left in it."""
        while True:
            yield from self._read_on()
            if not self._moved():
                return
            # What was written between the last look and the renaming.
            yield from self._read_on()
            if self._fd is not None:
                os.close(self._fd)
            self._fd, self._rest, self.position = None, b"", 0
            self._open()
            if self._fd is None:
                return

    def _read_on(self) -> Iterator[Line]:
        if self._fd is None:
            return
        if os.fstat(self._fd).st_size < self.position:
            self.position, self._rest = 0, b""
        while data := os.pread(self._fd, LINE_BYTES_MAX, self.position):
            self.position += len(data)
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from map(line_of, whole)

    def _open(self) -> None:
        try:
            self._fd = open_regular(self._log)
        except FileNotFoundError:
            self._fd = None
        except OSError as error:
            if self._refusal != (said := _why(error)):
                self._refusal = said
                print(f"{self._log}: {said}", file=sys.stderr)

    def _moved(self) -> bool:
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return False
        return self._fd is None or not os.path.samestat(status, os.fstat(self._fd))


def _whole(fd: int) -> int:
    """Where the last whole line of a file ends."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE_BYTES_MAX)
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1
