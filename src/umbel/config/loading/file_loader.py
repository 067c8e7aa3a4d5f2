"""Loader of a configuration's files: the main one and all that it includes, variables replaced and paths absolute.

Interprets ``include`` and the keys that name files, nothing else.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .certificates import TLS_PATHS
from .error_report import ErrorReport
from .file_reader import FileStamp, SourceFile, UnreadableError, read
from .merge import Origin

INCLUDES_MAX = 16
"""Files that may stand between the main one and an included one."""


class FileLoader:
    """The files read so far. Each is read once, however many files include it."""

    def __init__(self, report: ErrorReport) -> None:
        self.files: list[tuple[SourceFile, dict[str, Any]]] = []
        """Each file with its data, in the order of reading: the main one first."""
        self.complete = True
        """Whether every file was found and read. If not, one of the missing files may define an unknown upstream."""
        self.stamps: list[FileStamp] = []
        """The stamp of every file that was read, parsed or not."""
        self._report = report
        self._seen: set[str] = set()

    def read(self, path: Path, name: str, depth: int = 0) -> None:
        """Read the file at ``path``, called ``name`` in messages, then the files that it includes.

        What cannot be read goes into the report.
        """
        if (real := _real(path)) in self._seen:
            return
        self._seen.add(real)
        self._report.add_file(name)
        try:
            source = read(path, name)
        except UnreadableError as error:
            self._report.add_unreadable(name, error)
            if error.stamp is not None:
                self.stamps.append(error.stamp)
            self.complete = False
            return
        self.stamps.append(source.stamp)
        data, wrong = self._report.variables.replace(source.data)
        for at, reason in wrong:
            self._report.add(Origin(source, at), reason)
        _make_absolute(source, data)
        self.files.append((source, data))
        patterns = data.get("include")
        for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
            if isinstance(pattern, str):
                self._include(Origin(source, ("include", index)), pattern, depth + 1)
            else:
                self.complete = False

    def _include(self, origin: Origin, pattern: str, depth: int) -> None:
        if depth > INCLUDES_MAX:
            self._report.add(origin, f"files include each other more than {INCLUDES_MAX} deep")
            self.complete = False
            return
        source = origin.source
        matches = _matches(source.directory, pattern)
        if not matches:
            self._report.add(origin, "no file matches this")
            self.complete = False
        for match in matches:
            self.read(source.directory / match, os.path.normpath(Path(source.name).parent / match), depth)


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL in the name; opening it will say so
        return str(path)


def _matches(directory: Path, pattern: str) -> list[str]:
    try:
        found = glob.glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    except ValueError:  # a NUL in the pattern
        return []
    return sorted(match for match in found if not (directory / match).is_dir())


def _make_absolute(source: SourceFile, data: dict[str, Any]) -> None:
    """Make the paths in one file's data absolute, each relative to that file; validation reports what is no path."""
    upstreams = _table(data, "upstreams")
    for name in upstreams:
        _absolute(source, _table(_table(upstreams, name), "tls"), TLS_PATHS)
    _absolute(source, _table(_table(_table(data, "defaults"), "upstream"), "tls"), TLS_PATHS)
    _absolute(source, _table(data, "logs"), ("dir",))
    _absolute(source, _table(data, "supervisor"), ("control",))


def _absolute(source: SourceFile, table: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if isinstance(value := table.get(key), str):
            table[key] = str(source.directory / value)


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
