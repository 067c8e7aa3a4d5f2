"""The files of a configuration: the main one and all that it includes, variables replaced and paths absolute.

Looks at ``include`` and nothing else of what the files say.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from .error_report import Problems
from .file_reader import Source, Stamp, UnreadableError, read
from .merge import Origin
from .named_files import make_absolute

INCLUDES_MAX = 16
"""Files that may stand between the main one and an included one."""


class Reading:
    """The main file and all that it includes, variables replaced and paths absolute."""

    def __init__(self, problems: Problems) -> None:
        self.files: list[tuple[Source, dict[str, Any]]] = []
        self.whole = True
        """Whether nothing is unknown that another file would say."""
        self.stamps: list[Stamp] = []
        """Of every file that was read, understood or not."""
        self._problems = problems
        self._seen: set[str] = set()

    def read(self, path: Path, name: str, depth: int = 0) -> None:
        """Read one file, then those that it includes; each file is read once, whoever names it."""
        if (real := _real(path)) in self._seen:
            return
        self._seen.add(real)
        self._problems.new_file(name)
        try:
            source = read(path, name)
        except UnreadableError as error:
            self._problems.in_file(name, error)
            if error.stamp is not None:
                self.stamps.append(error.stamp)
            self.whole = False
            return
        self.stamps.append(source.stamp)
        data, wrong = self._problems.variables.replace(source.data)
        for at, reason in wrong:
            self._problems.at(Origin(source, at), reason)
        make_absolute(source, data)
        self.files.append((source, data))
        patterns = data.get("include")
        for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
            if isinstance(pattern, str):
                self._include(Origin(source, ("include", index)), pattern, depth + 1)
            else:
                self.whole = False

    def _include(self, origin: Origin, pattern: str, depth: int) -> None:
        if depth > INCLUDES_MAX:
            self._problems.at(origin, f"files include each other more than {INCLUDES_MAX} deep")
            self.whole = False
            return
        source = origin.source
        matches = _matches(source.directory, pattern)
        if not matches:
            self._problems.at(origin, "no file matches this")
            self.whole = False
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
