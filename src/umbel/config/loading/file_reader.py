"""Reader of one TOML file: read, decoded and parsed, or a plain sentence why not.

Interprets no key and no value. A file that is being written is recognised by its stamp (device, inode, size, time).
"""

from __future__ import annotations

import os
import re
import time
import tomllib
from ast import literal_eval
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...core.regular_file import open_regular
from ..schema.sections import KeyPath
from .line_numbers import LineNumbers

SIZE_MAX = 16 * 2**20
"""Bytes of one file: far above any configuration, and below what would exhaust a machine (/dev/zero)."""
SETTLED_S = 1.0
"""A file that was changed less than so many seconds ago may still be being written."""
PAUSE_S = 0.1
"""Seconds between two reads of such a file."""
READS_MAX = 20
"""The most reads of a configuration that keeps changing."""
DEPTH_MAX = 100
"""Levels of nesting: everything that walks a configuration may recurse this far."""

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAMESPACE = re.compile(r"^Cannot (?:declare|mutate|redefine)[a-z ]*(\(.*\))(?: twice)?$")
_NO_VALUE = "there is no value here; texts stand in quotes"
_HUGE_NUMBER = re.compile(r"(?<![0-9_])[0-9_]{4300,}")


class FileStamp(NamedTuple):
    """The identity and state of a file when it was read: another stamp means another file or another content."""

    path: Path
    device: int
    inode: int
    size: int
    changed_ns: int
    """Nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> FileStamp:
        """Make the stamp of the file at ``path``, which has this status."""
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class UnreadableError(Exception):
    """A file that gives no data: the reason as a sentence, and the line of the mistake if there is one."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.stamp: FileStamp | None = None
        """The stamp of a file that was read and could not be parsed."""


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: its name in messages, its path, its text and its data."""

    name: str
    """As messages show it: the path that was given, or one made from it."""
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
        """The lines of its keys; the first access parses the text once more."""
        return LineNumbers(self.text)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of the key at ``path``, or of its nearest ancestor in the file."""
        return self.line_numbers.line(path) if path else None


def read(path: Path, name: str) -> SourceFile:
    """Read the file at ``path``, called ``name`` in messages.

    Raises:
        UnreadableError: it is not there, may not be read, is no regular file, is too big, is no UTF-8, is no TOML, or
            is nested too deep.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(SIZE_MAX + 1)
            stamp = FileStamp.of(path, os.fstat(file.fileno()))
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read: {why(error)}") from error
    try:
        text = _decoded(content)
        return SourceFile(name, path.absolute(), text, _parse(text), stamp)
    except UnreadableError as error:
        error.stamp = stamp
        raise


def read_settled(path: Path, name: str) -> SourceFile:
    """Read a file as ``read`` does, again while it is being written.

    Raises:
        UnreadableError: as ``read``; or it keeps changing.
    """
    for _ in range(READS_MAX):
        try:
            source = read(path, name)
        except UnreadableError as error:
            if error.stamp is None or settled([error.stamp]):
                raise
        else:
            if settled([source.stamp]):
                return source
    raise UnreadableError(KEEPS_CHANGING)


KEEPS_CHANGING = "keeps changing while it is read; try again when it is written"


def settled(stamps: Iterable[FileStamp]) -> bool:
    """Whether the files are still as they were read. Blocks for ``PAUSE_S`` if one of them was changed just now.

    A file that replaces another may be of any age, so the stamps of all files are compared.
    """
    every = [*stamps]
    if any(abs(time.time() - stamp.changed_ns / 1e9) < SETTLED_S for stamp in every):
        # A pause of the thread, which reading the file blocks as well: a reload loads in a thread of its own. No file
        # system reports when a writer is done, so there is nothing to wait for instead.
        time.sleep(PAUSE_S)
    try:
        return all(FileStamp.of(stamp.path, stamp.path.stat()) == stamp for stamp in every)
    except OSError:
        return False


def _decoded(content: bytes) -> str:
    if len(content) > SIZE_MAX:
        raise UnreadableError(f"is larger than {SIZE_MAX // 2**20}MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError("is not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from error


def why(error: OSError | ValueError) -> str:
    """Return the reason of a failed system call in words."""
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
    except ValueError as error:  # Python refuses to make an int of more than 4,300 digits
        match = _HUGE_NUMBER.search(text)
        line = text.count("\n", 0, match.start()) + 1 if match else None
        raise UnreadableError("has a number that is too long to be one", line) from error
    if _deeper_than(DEPTH_MAX, data):
        raise UnreadableError(f"is nested deeper than {DEPTH_MAX} levels")
    return data


def _syntax(message: str, text: str) -> UnreadableError:
    place = _PLACE.search(message)
    words = _plain(_PLACE.sub("", message))
    if place is None or place[1] is None:
        words = "the file ends where a value should stand" if words == _NO_VALUE else f"{words}, at the end of the file"
        return UnreadableError(f"is not TOML: {words}", text.rstrip("\n").count("\n") + 1)
    return UnreadableError(f"is not TOML: {words}, at column {place[2]}", int(place[1]))


def _plain(message: str) -> str:
    """Return a message of ``tomllib`` in the words of the file, where it uses those of the parser."""
    if message == "Cannot overwrite a value":
        return "this key stands there already"
    if match := _NAMESPACE.match(message):
        key = ".".join(literal_eval(match[1]))  # tomllib shows the key as a tuple of its parts
        return f"[{key}] stands there already" if message.endswith("twice") else f"{key} is complete and takes no more"
    if message == "Invalid value":
        return _NO_VALUE
    if message == r"Illegal character '\n'":
        return "a text is not closed on its line"
    if message == "Invalid statement":
        return 'expected "key = value" or a [table]'
    return message[0].lower() + message[1:]


def _deeper_than(limit: int, data: object) -> bool:
    """Whether ``data`` has more levels than ``limit``. No recursion: a dotted key of 100,000 parts is valid TOML."""
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
