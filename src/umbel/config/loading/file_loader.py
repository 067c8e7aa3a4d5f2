"""Loader of the files of a configuration: it reads the main file and all included ones, and replaces variables.

It also makes paths absolute. It interprets only ``include`` and the keys that name files.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .certificates import TLS_PATHS
from .errors.error_report import ErrorReport
from .file_reader import FileStamp, SourceFile, UnreadableError, read
from .merge import Origin

INCLUDES_MAX = 16
"""The most levels of includes."""


class FileLoader:
    """The files read so far. Each file is read once, also if several files include it."""

    def __init__(self, report: ErrorReport) -> None:
        self.files: list[tuple[SourceFile, dict[str, Any]]] = []
        """Each file with its data, in the order of reading. The main file is the first."""
        self.complete = True
        """Whether every file was found and read. If False, a missing file may define an unknown upstream."""
        self.stamps: list[FileStamp] = []
        """The stamps of all files that were read, also of those that could not be parsed."""
        self._report = report
        self._seen: set[str] = set()

    def read(self, path: Path, name: str, depth: int = 0) -> None:
        """Read a file, then the files that it includes. Files that cannot be read are added to the report.

        A file that was read before is not read again.

        Args:
            path: the path of the file.
            name: the file's name in messages.
            depth: the number of includes that led to the file.
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
        self.add(source, depth)

    def add(self, source: SourceFile, depth: int = 0) -> None:
        """Add what was read, and read the files that it includes. ``depth``: as for ``read``."""
        data, wrong = self._report.variables.replace(source.data, source.directory)
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
            self._report.add(origin, f"files include each other more than {INCLUDES_MAX} levels deep")
            self.complete = False
            return
        source = origin.source
        matches = _matches(source.directory, pattern)
        if not matches:
            self._report.add(origin, "no file matches this pattern, which is relative to the file that it is in")
            self.complete = False
        for match in matches:
            self.read(source.directory / match, os.path.normpath(Path(source.name).parent / match), depth)


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # The name holds a NUL. Opening the file will report that.
        return str(path)


def _matches(directory: Path, pattern: str) -> list[str]:
    try:
        found = glob.glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    except ValueError:  # The pattern holds a NUL.
        return []
    return sorted(match for match in found if not (directory / match).is_dir())


def _make_absolute(source: SourceFile, data: dict[str, Any]) -> None:
    """Make the relative paths in the data of a file absolute. They are relative to that file."""
    upstreams = _table(data, "upstreams")
    for name in upstreams:
        _absolute(source, _table(_table(upstreams, name), "tls"), TLS_PATHS)
    _absolute(source, _table(_table(_table(data, "defaults"), "upstream"), "tls"), TLS_PATHS)
    _absolute(source, _table(data, "logs"), ("dir",))
    auth = _table(data, "auth")
    for name in auth:
        _absolute(source, _table(auth, name), ("file",))
        issuers = _table(auth, name).get("issuers")
        for issuer in issuers if isinstance(issuers, list) else ():
            if isinstance(issuer, dict):
                _absolute(source, issuer, ("keys",))
    routes = data.get("routes")
    for route in [*(routes if isinstance(routes, list) else ()), _table(_table(data, "defaults"), "route")]:
        if isinstance(route, dict):
            _absolute(source, _table(route, "respond"), ("file",))
            calls = _table(route, "calls")
            for name in calls:
                _absolute(source, _table(_table(calls, name), "respond"), ("file",))


def _absolute(source: SourceFile, table: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if isinstance(value := table.get(key), str):
            table[key] = str(source.directory / value)


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
