"""Environment variables in the texts of a configuration: ``${NAME}`` and ``${NAME:-default}``. ``$${`` gives ``${``.

Keys are not replaced. A value of a variable may be secret, so ``Variables`` also hides these values in messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..schema.sections import KeyPath

# Alternatives in this order: the escape, a variable, and any other "${". A variable without its closing brace matches
# up to the end of the text, so that the text is searched only once.
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*+)(?::-(?P<default>[^}]*+))?+(?P<closed>\})?|\$\{")
_WHOLE_MIN, _WHOLE_MAX = -(2**63), 2**63 - 1
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


class Variables:
    """The environment variables of one load: it replaces them, and hides the replaced values in messages."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._secrets: dict[str, str] = {}

    def replace(self, data: Any, path: KeyPath = ()) -> tuple[Any, list[tuple[KeyPath, str]]]:
        """Return ``data`` with variables replaced, and the problems. ``REPORTED`` is in the place of a bad value.

        ``path`` is the path of ``data``; the paths of the problems begin with it.
        """
        problems: list[tuple[KeyPath, str]] = []
        return self._walk(data, path, problems), problems

    def hide(self, message: str) -> str:
        """Return ``message`` with the values of replaced variables turned into ``${NAME}``.

        Values of fewer than ``_HIDDEN_MIN`` characters stay: they may be words of the message by chance.
        """
        for value in sorted(self._secrets, key=len, reverse=True):
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
        return "".join(self._pieces(text, wrong)) if "${" in text else text

    def _pieces(self, text: str, wrong: list[str]) -> Iterator[str]:
        end = 0
        for match in _VARIABLE.finditer(text):
            yield text[end : match.start()]
            end = match.end()
            if match[0] == "$${":
                yield "${"
            elif match["closed"] is None:
                wrong.append(
                    '"${" must begin a variable, ${NAME} or ${NAME:-default}; write $${ for the two characters ${'
                )
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
        if len(value) >= _HIDDEN_MIN:
            self._secrets[value] = f"${{{name}}}"
        return value
