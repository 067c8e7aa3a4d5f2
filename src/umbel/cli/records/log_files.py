"""Readers of a log: of all its files, including rotated and compressed ones, and of the lines that are appended.

The live file is opened before the rotated files are listed, so that a file that is renamed or compressed meanwhile is
neither left out nor read twice.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from ...core.regular_file import open_regular
from ...logs.files.reading import LINE_BYTES_MAX, lines_in_file, lines_of, log_files
from ...logs.files.retention import SUFFIXES
from ...logs.records.combined import record_of


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: its bytes without the line end, and its record.

    The record is a JSON object, or is made of a line in the combined format. It is empty for any other line.
    """

    data: bytes
    record: dict[str, Any] = field(default_factory=dict)
    combined: bool = False
    """Whether the line has the combined format."""

    @property
    def text(self) -> str:
        """The line as text; bytes that are not UTF-8 are escaped."""
        return self.data.decode("utf-8", "backslashreplace")


def line_of(data: bytes) -> LogLine:
    """Decode a line of a file."""
    data = data.rstrip(b"\n")
    try:
        record = msgspec.json.decode(data)
    except msgspec.DecodeError:
        combined = record_of(data)
        return LogLine(data, combined or {}, combined is not None)
    return LogLine(data, record if isinstance(record, dict) else {})


class LogFiles:
    """All files of a log at the time of creation, as a context manager that closes the live one.

    If a file cannot be read to its end, the rest of it is left out, and a line on stderr says why.

    Args:
        log: the path of the live file.
        follower: a reader that continues where these files end, so that no line is read twice; None: there is none.
    """

    def __init__(self, log: Path, follower: Follower | None = None) -> None:
        self._log = log
        self._upto = None if follower is None else follower.position
        self.unreadable = False
        """Whether one of the files could not be read."""
        self._live = self._open() if follower is None else follower.duplicate()
        identity = None if self._live is None else os.fstat(self._live.fileno())
        self._older: list[Path] = []
        for path in log_files(log):
            with suppress(FileNotFoundError):
                # The live file may have been renamed since it was opened: then it is listed too.
                if path != log and (identity is None or not os.path.samestat(path.stat(), identity)):
                    self._older.append(path)

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.close()

    def lines(self) -> Iterator[LogLine]:
        """Yield all lines, the oldest first. The lines can be read only once."""
        for path in self._older:
            yield from map(line_of, self._lines_of(path))
        yield from map(line_of, self._lines_of_live())

    def last(self, count: int) -> list[LogLine]:
        """Return the last ``count`` lines, the oldest first, read from as few files as possible."""
        if not count:
            return []
        found: deque[bytes] = deque(self._lines_of_live(), maxlen=count)
        for path in reversed(self._older):
            if len(found) == count:
                break
            found.extendleft(reversed(deque(self._lines_of(path), maxlen=count - len(found))))
        return [line_of(data) for data in found]

    def _open(self) -> IO[bytes] | None:
        try:
            return os.fdopen(open_regular(self._log), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(self._log, error)
            return None

    def _lines_of_live(self) -> Iterator[bytes]:
        if self._live is None:
            return
        read = 0
        try:
            for data in lines_in_file(self._live):
                read += len(data)
                if self._upto is not None and read > self._upto:
                    return
                yield data
        except OSError as error:
            self._complain(self._log, error)

    def _lines_of(self, path: Path) -> Iterator[bytes]:
        # The file may have been compressed since it was listed. If it was removed, it is left out.
        for name in (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES.values())):
            try:
                yield from lines_of(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(name, error)
            return

    def _complain(self, path: Path, error: OSError) -> None:
        self.unreadable = True
        print(f"{path}: {_why(error)}", file=sys.stderr)


def _why(error: OSError) -> str:
    return error.strerror or str(error)


class Follower:
    """A reader of the lines that are appended to a log from now on, across rotation and truncation.

    The log need not exist yet. If it cannot be opened, a line on stderr says why, once for each reason.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._fd: int | None = None
        self._rest = b""
        self._reported_reason = ""
        """Why the latest attempt to open the file failed."""
        self.position = 0
        """The offset up to which the file was read; at first the end of its last whole line."""
        self._open()
        if self._fd is not None:
            self.position = _whole(self._fd)

    def duplicate(self) -> IO[bytes] | None:
        """Return a second file object of the followed file, for its earlier lines; None if there is no file."""
        return None if self._fd is None else os.fdopen(os.dup(self._fd), "rb")

    def read(self) -> Iterator[LogLine]:
        """Yield the whole lines that were appended since the last call, then end; never waits.

        After a rotation the rest of the renamed file comes first.
        """
        while True:
            yield from self._read_on()
            if not self._moved():
                return
            # Lines that were appended between the last read and the renaming.
            yield from self._read_on()
            if self._fd is not None:
                os.close(self._fd)
            self._fd, self._rest, self.position = None, b"", 0
            self._open()
            if self._fd is None:
                return

    def _read_on(self) -> Iterator[LogLine]:
        if self._fd is None:
            return
        if os.fstat(self._fd).st_size < self.position:
            self.position, self._rest = 0, b""
        while data := os.pread(self._fd, LINE_BYTES_MAX, self.position):
            self.position += len(data)
            *whole, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) >= LINE_BYTES_MAX:  # Longer than any record: read in pieces, as ``lines_of`` does.
                whole.append(self._rest)
                self._rest = b""
            yield from map(line_of, whole)

    def _open(self) -> None:
        try:
            self._fd = open_regular(self._log)
        except FileNotFoundError:
            self._fd = None
        except OSError as error:
            if self._reported_reason != (said := _why(error)):
                self._reported_reason = said
                print(f"{self._log}: {said}", file=sys.stderr)

    def _moved(self) -> bool:
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return False
        return self._fd is None or not os.path.samestat(status, os.fstat(self._fd))


def _whole(fd: int) -> int:
    """Return the offset at which the last whole line of a file ends."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE_BYTES_MAX)
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1
