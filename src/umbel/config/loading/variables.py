"""Variables in the texts of a configuration: ``${NAME}``, ``${NAME:-default}`` and ``${file:PATH}``.

They are the values of environment variables and the contents of files. ``$${`` gives ``${``. Keys are not replaced. A
value of a variable may be secret, so ``Variables`` also hides these values in messages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.regular_file import open_regular
from .file_reader import FileStamp, why

if TYPE_CHECKING:
    from ..schema.sections import KeyPath

# Alternatives in this order: the escape, a variable, and any other "${". A variable without its closing brace matches
# up to the end of the text, so that the text is searched only once.
_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?:file:(?!-)(?P<file>[^}]*+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*+)(?::-(?P<default>[^}]*+))?+)(?P<closed>\})?|\$\{"
)
_WHOLE_MIN, _WHOLE_MAX = -(2**63), 2**63 - 1
FILE_MAX = 64 * 1024
"""The most bytes of a file in the place of a variable."""
_HIDDEN_MIN = 4
"""The least characters of a value that is hidden in messages."""


class _Reported:
    """The type of ``REPORTED``, which replaces a value whose problem is in the report already."""

    def __repr__(self) -> str:
        return "REPORTED"


REPORTED = _Reported()


def holds_reported(value: object) -> bool:
    """Whether ``value`` is ``REPORTED`` or contains it."""
    if isinstance(value, dict):
        return any(map(holds_reported, value.values()))
    if isinstance(value, list):
        return any(map(holds_reported, value))
    return value is REPORTED


class VariableText(str):
    """A value that is one variable and nothing else, so that it takes the type of its key (``variable_types.py``)."""

    __slots__ = ()


class Variables:
    """The variables of one load: it replaces them, and hides the replaced values in messages."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.stamps: list[FileStamp] = []
        """The stamps of the files that were read."""
        self._environ = environ
        self._secrets: dict[str, str] = {}
        self._directory = Path()

    def replace(self, data: Any, directory: Path) -> tuple[Any, list[tuple[KeyPath, str]]]:
        """Return ``data`` with variables replaced, and the problems. ``REPORTED`` is in the place of a bad value.

        Paths of files are relative to ``directory``. Blocks on these files.
        """
        problems: list[tuple[KeyPath, str]] = []
        self._directory = directory
        return self._walk(data, (), problems), problems

    def hide(self, message: str) -> str:
        """Return ``message`` with the values of replaced variables turned into ``${NAME}`` or ``${file:PATH}``.

        The items of a value that may be a list are hidden too. Values and items of fewer than ``_HIDDEN_MIN``
        characters stay: they may be words of the message by chance.
        """
        found = [value for value in self._secrets if len(value) >= _HIDDEN_MIN and value in message]
        for value in sorted(found, key=len, reverse=True):
            message = message.replace(value, self._secrets[value])
        return message

    def _walk(self, value: Any, path: KeyPath, problems: list[tuple[KeyPath, str]]) -> Any:
        if isinstance(value, dict):
            return {key: self._walk(inner, (*path, key), problems) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._walk(inner, (*path, index), problems) for index, inner in enumerate(value)]
        wrong: list[str] = []
        if isinstance(value, str):
            replaced = self._text(value, wrong)
        else:
            replaced = value
            if isinstance(value, int) and not _WHOLE_MIN <= value <= _WHOLE_MAX:
                wrong.append("a whole number may have at most 64 bits")
        problems.extend((path, reason) for reason in wrong)
        return REPORTED if wrong else replaced

    def _text(self, text: str, wrong: list[str]) -> str:
        if "${" not in text:
            return text
        replaced = "".join(self._pieces(text, wrong))
        match = _VARIABLE.fullmatch(text)
        return VariableText(replaced) if match is not None and match["closed"] is not None else replaced

    def _pieces(self, text: str, wrong: list[str]) -> Iterator[str]:
        end = 0
        for match in _VARIABLE.finditer(text):
            yield text[end : match.start()]
            end = match.end()
            if match[0] == "$${":
                yield "${"
            elif match["closed"] is None:
                wrong.append(
                    '"${" must begin a variable, ${NAME}, ${NAME:-default} or ${file:PATH}; write $${ for the two'
                    " characters ${"
                )
            elif match["file"] is not None:
                yield self._content(match["file"], wrong)
            else:
                yield self._value(match["name"], match["default"], wrong)
        yield text[end:]

    def _value(self, name: str, default: str | None, wrong: list[str]) -> str:
        value = self._environ.get(name)
        if default is not None and not value:  # Unset or empty, as in a shell.
            return default
        if value is None:
            wrong.append(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
            return ""
        self._keep_secret(value, f"${{{name}}}")
        return value

    def _content(self, name: str, wrong: list[str]) -> str:
        """The content of a file without the line end at its end. It must be UTF-8 of at most ``FILE_MAX`` bytes."""
        path = self._directory / name
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                content = file.read(FILE_MAX + 1)
                self.stamps.append(FileStamp.of(path, os.fstat(file.fileno())))
            value = content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            wrong.append(f"the file {name} is not UTF-8 text")
            return ""
        except (OSError, ValueError) as error:
            wrong.append(f"the file {name} cannot be read: {why(error)}")
            return ""
        if len(content) > FILE_MAX:
            wrong.append(f"the file {name} is larger than {FILE_MAX // 1024}KiB")
        self._keep_secret(value, f"${{file:{name}}}")
        return value

    def _keep_secret(self, value: str, shown: str) -> None:
        """Have ``hide`` replace ``value`` by ``shown``, and each part of it that a list would have as an item."""
        self._secrets[value] = shown
        for item in map(str.strip, value.split(",")):
            self._secrets.setdefault(item, shown)
