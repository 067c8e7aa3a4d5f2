"""Report of a configuration's problems: without duplicates and secrets, in the order of the files and lines."""

from __future__ import annotations

import re

from ....core.errors import ConfigProblem
from ...schema.section_tree import dotted
from ..file_reader import UnreadableError
from ..merge import Origin
from ..variables import Variables

_TEXT_MAX = 400


class ErrorReport:
    """The problems found so far, without duplicates. ``problems`` returns them for a ``ConfigError``."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.found: set[ConfigProblem] = set()
        self._order: dict[str, int] = {}

    def add_file(self, name: str) -> None:
        """Add a file. The order of these calls is the order of the files in ``problems``; it must precede ``add``."""
        self._order.setdefault(_one_line(name), len(self._order))

    def add_unreadable(self, name: str, error: UnreadableError) -> None:
        """Add the problem of a file that cannot be read or parsed."""
        self.found.add(ConfigProblem(_one_line(name), error.line, "", _one_line(error.reason)))

    def add(self, origin: Origin, reason: str, *, quotes: bool = False) -> None:
        """Add a problem at ``origin``.

        Args:
            origin: the file, which ``add_file`` must know, and the key.
            reason: what is wrong, and what to write instead.
            quotes: ``reason`` may contain the value of a variable; the value is then replaced by the variable's name.
        """
        if quotes:
            reason = self.variables.hide(reason)
        name, key = _one_line(origin.source.name), _one_line(dotted(origin.path))
        self.found.add(ConfigProblem(name, origin.line, key, _one_line(reason)))

    def problems(self) -> list[ConfigProblem]:
        """Return all problems, in the order of the files and their lines."""
        return sorted(
            self.found, key=lambda each: (self._order[each.file], each.line or 0, _natural(each.key), each.reason)
        )


def _one_line(text: str) -> str:
    """Return any text as one printable line of at most about ``_TEXT_MAX`` characters."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    half = _TEXT_MAX // 2
    return shown if len(shown) <= _TEXT_MAX else f"{shown[:half]} … {shown[-half:]}"


def _natural(key: str) -> list[str | int]:
    """Return a sort key that orders urls[2] before urls[10].

    Texts and numbers alternate in it, so a text is never compared with a number.
    """
    parts = re.split(r"\[([0-9]+)\]", key)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
