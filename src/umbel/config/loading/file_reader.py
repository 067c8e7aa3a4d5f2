"""Reader of one TOML file: it returns the parsed data, or raises an error with the reason as a sentence.

It interprets no key and no value. A file that is being written is recognised by its stamp (device, inode, size, time).
"""

from __future__ import annotations

import os
import re
import time
import tomllib
from ast import literal_eval
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...core.regular_file import open_regular
from ..schema.sections import KeyPath
from ..schema.values.units import format_size
from .errors.line_numbers import LineNumbers

SIZE_MAX = 16 * 2**20
"""The most bytes of a file: far more than any configuration has, and little enough for the memory of any machine."""
SETTLED_S = 1.0
"""Seconds: a file that was changed within this time may still be being written."""
PAUSE_S = 0.1
"""Seconds between two reads of such a file."""
READS_MAX = 20
"""The most reads of a configuration that keeps changing."""
DEPTH_MAX = 100
"""The most levels of nesting, so that functions may handle a configuration by recursion."""

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAMESPACE = re.compile(r"^Cannot (?:declare|mutate|redefine)[a-z ]*(\(.*\))(?: twice)?$")
_NO_VALUE = "there is no value here; write texts in quotes"
_HUGE_NUMBER = re.compile(r"(?<![0-9_])[0-9_]{4300,}")

GIVEN_NAME = "configuration"
"""The name in messages of a configuration that no file holds."""


class FileStamp(NamedTuple):
    """The identity and the state of a file when it was read. A different stamp means a different file or content."""

    path: Path
    device: int
    inode: int
    size: int
    changed_ns: int
    """Nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> FileStamp:
        """Make the stamp of the file at ``path`` from its status."""
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class UnreadableError(Exception):
    """A file cannot be read or parsed. ``line`` is the line of the mistake, if the mistake has one."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.stamp: FileStamp | None = None
        """The stamp of the file, if it was read and could not be parsed."""


@dataclass(frozen=True)
class SourceFile:
    """A file that was read and parsed."""

    name: str
    """The name in messages: the path as it was given, or a path relative to that of the including file."""
    path: Path
    text: str
    data: dict[str, Any]
    stamp: FileStamp

    @property
    def directory(self) -> Path:
        """The directory that paths in this file are relative to."""
        return self.path.parent

    @cached_property
    def line_numbers(self) -> LineNumbers:
        """The lines of the keys. The first access parses the text again."""
        return LineNumbers(self.text)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of the key at ``path``, or of its nearest ancestor in the file."""
        return self.line_numbers.line(path) if path else None


def read(path: Path, name: str, size_max: int = SIZE_MAX) -> SourceFile:
    """Read and parse the file at ``path``, whose name in messages is ``name``. Blocks.

    Args:
        path: the path of the file.
        name: the file's name in messages.
        size_max: the most bytes of the file.

    Raises:
        UnreadableError: the file does not exist, may not be read, is no regular file, is too large, is no UTF-8, is no
            TOML, or is nested too deeply.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(size_max + 1)
            stamp = FileStamp.of(path, os.fstat(file.fileno()))
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read: {why(error)}") from error
    try:
        text = _decoded(content, size_max)
        return SourceFile(name, path.absolute(), text, _parse(text), stamp)
    except UnreadableError as error:
        error.stamp = stamp
        raise


def parsed(text: str, size_max: int = SIZE_MAX) -> SourceFile:
    """Parse a text as if it were the content of a file without a name.

    Args:
        text: the text.
        size_max: the most bytes of the text.

    Raises:
        UnreadableError: as in ``read``.
    """
    content = text.encode()
    return SourceFile("", Path(), _decoded(content, size_max), _parse(text), FileStamp(Path(), 0, 0, len(content), 0))


def given(source: str | Mapping[str, Any]) -> SourceFile:
    """Make a ``SourceFile`` of TOML text, or of a copy of data, as if a file ``GIVEN_NAME`` of the current directory.

    Raises:
        UnreadableError: as in ``read``.
    """
    path = Path(GIVEN_NAME).absolute()
    if isinstance(source, str):
        return replace(parsed(source), name=GIVEN_NAME, path=path)
    data = dict(source)
    if _deeper_than(DEPTH_MAX, data):
        raise UnreadableError(f"is nested deeper than {DEPTH_MAX} levels")
    return SourceFile(GIVEN_NAME, path, "", deepcopy(data), FileStamp(path, 0, 0, 0, 0))


def read_settled(path: Path, name: str, size_max: int = SIZE_MAX) -> SourceFile:
    """Do as ``read``, and read the file again while it is being written.

    Raises:
        UnreadableError: as in ``read``, or the file keeps changing.
    """
    for _ in range(READS_MAX):
        try:
            source = read(path, name, size_max)
        except UnreadableError as error:
            if error.stamp is None or settled([error.stamp]):
                raise
        else:
            if settled([source.stamp]):
                return source
    raise UnreadableError(KEEPS_CHANGING)


KEEPS_CHANGING = "keeps changing while it is read; try again when it is written"


def settled(stamps: Iterable[FileStamp]) -> bool:
    """Whether the files are unchanged since they were read.

    Blocks for ``PAUSE_S`` if any of them was changed within ``SETTLED_S``. The stamps of all files are compared, since
    a file that replaces another one may have any age.
    """
    every = [*stamps]
    if any(abs(time.time() - stamp.changed_ns / 1e9) < SETTLED_S for stamp in every):
        # Blocks the thread, as reading the file does; a reload runs in a thread of its own. No file system reports that
        # a writer is done, so no event can be awaited instead.
        time.sleep(PAUSE_S)
    try:
        return all(FileStamp.of(stamp.path, stamp.path.stat()) == stamp for stamp in every)
    except OSError:
        return False


def _decoded(content: bytes, size_max: int) -> str:
    if len(content) > size_max:
        raise UnreadableError(f"is larger than {format_size(size_max)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError("is not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from error


def why(error: OSError | ValueError) -> str:
    """Return the reason for a failed system call in words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a directory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "no file can have this name"


def _parse(text: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(str(error), text) from error
    except RecursionError as error:
        raise UnreadableError(f"is nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:  # Python refuses to make an int of more than 4,300 digits.
        match = _HUGE_NUMBER.search(text)
        line = text.count("\n", 0, match.start()) + 1 if match else None
        raise UnreadableError("has a number with too many digits", line) from error
    if _deeper_than(DEPTH_MAX, data):
        raise UnreadableError(f"is nested deeper than {DEPTH_MAX} levels")
    return data


def _syntax(message: str, text: str) -> UnreadableError:
    place = _PLACE.search(message)
    words = _plain(_PLACE.sub("", message))
    if place is None or place[1] is None:
        words = "the file ends where a value is expected" if words == _NO_VALUE else f"{words}, at the end of the file"
        return UnreadableError(f"is not TOML: {words}", text.rstrip("\n").count("\n") + 1)
    return UnreadableError(f"is not TOML: {words}, at column {place[2]}", int(place[1]))


def _plain(message: str) -> str:
    """Return a message of ``tomllib`` without the terms of its parser."""
    if message == "Cannot overwrite a value":
        return "this key is already set"
    if match := _NAMESPACE.match(message):
        key = ".".join(literal_eval(match[1]))  # tomllib writes the key as a tuple of its parts.
        return f"[{key}] is already defined" if message.endswith("twice") else f"{key} is already complete"
    if message == "Invalid value":
        return _NO_VALUE
    if message == r"Illegal character '\n'":
        return "a text has no closing quote on its line"
    if message == "Invalid statement":
        return 'expected "key = value" or a [table]'
    return message[0].lower() + message[1:]


def _deeper_than(limit: int, data: object) -> bool:
    """Whether ``data`` has more levels than ``limit``. Without recursion: a TOML key may have 100,000 dotted parts."""
    level = [data]
    for _ in range(limit):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
