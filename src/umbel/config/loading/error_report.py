"""The problems found in a configuration: each once, in one line, in the order of the files, and without secrets.

Filled by ``reading.py`` and ``load.py``; becomes the ``ConfigError`` that people see. Judges nothing.
"""

from __future__ import annotations

import re

from ...core.errors import ConfigProblem
from ..schema.section_tree import dotted
from .file_reader import UnreadableError
from .merge import Origin
from .variables import Variables

_TEXT_MAX = 400


class Problems:
    """What was found so far, each thing once."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.found: set[ConfigProblem] = set()
        self._order: dict[str, int] = {}

    def new_file(self, name: str) -> None:
        """Problems are told in the order of the files that they stand in."""
        self._order.setdefault(_one_line(name), len(self._order))

    def in_file(self, name: str, error: UnreadableError) -> None:
        """A file gives no data."""
        self.found.add(ConfigProblem(_one_line(name), error.line, "", _one_line(error.reason)))

    def at(self, origin: Origin, reason: str, *, quotes: bool = False) -> None:
        """Something is wrong with the value of ``origin``; ``quotes``: the sentence may hold a variable's value."""
        if quotes:
            reason = self.variables.hide(reason)
        name, key = _one_line(origin.source.name), _one_line(dotted(origin.path))
        self.found.add(ConfigProblem(name, origin.line, key, _one_line(reason)))

    def sorted(self) -> list[ConfigProblem]:
        """All of them, in the order of the files and their lines."""
        return sorted(
            self.found, key=lambda each: (self._order[each.file], each.line or 0, _natural(each.key), each.reason)
        )


def _one_line(text: str) -> str:
    """What people see is one line, whatever stands in a file or in its name."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    half = _TEXT_MAX // 2
    return shown if len(shown) <= _TEXT_MAX else f"{shown[:half]} … {shown[-half:]}"


def _natural(key: str) -> list[str | int]:
    """For sorting: urls[2] comes before urls[10]. Texts and numbers take turns, so each meets its like."""
    parts = re.split(r"\[([0-9]+)\]", key)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
