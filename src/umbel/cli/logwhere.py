"""Conditions on a record: ``http.response.status_code>=500``, ``url.path~^/users``, ``kind``, ``!kind``.

Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]

_CONDITION = re.compile(
    r"(?P<not>!)?(?P<field>[\w.\[\]-]+)\s*(?:(?P<sign>>=|<=|!=|==|=|>|<|!~|~)\s*(?P<value>.*))?", re.S
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
MISSING = object()
"""What ``find`` gives for a field that a record does not have."""


def parse(text: str) -> Test:
    """The test that a condition means: a field alone (it is there), or compared with a value.

    Numbers are compared as numbers, other values as texts; ``~`` is a regular expression. A field that is not there
    makes every comparison false but ``!=`` and ``!~``.

    Raises:
        ValueError: it is no condition.
    """
    match = _parts(text)
    field, sign, value = match["field"], match["sign"], match["value"]
    if sign is None:
        there = match["not"] is None
        return lambda record: (find(record, field) is not MISSING) is there
    if sign in ("~", "!~"):
        try:
            search = re.compile(value).search
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        wanted = sign == "~"
        return lambda record: (search(_text(find(record, field))) is not None) is wanted
    return _comparison(field, sign, value)


def field_of(condition: str) -> str:
    """The field that a condition is about.

    Raises:
        ValueError: it is no condition.
    """
    return _parts(condition)["field"]


def find(record: Mapping[str, Any], field: str) -> Any:
    """The value of a field: under its whole name, or within a table of the record (``fields.line``)."""
    if field in record:
        return record[field]
    outer, dot, inner = field.partition(".")
    if dot and isinstance(record.get(outer), Mapping):
        return find(record[outer], inner)
    return MISSING


def _parts(text: str) -> re.Match[str]:
    match = _CONDITION.fullmatch(text.strip())
    if match is None or (match["not"] and match["sign"]):
        raise ValueError(f"{text!r} is no condition; write a field, a sign and a value, such as level=error")
    return match


def _comparison(field: str, sign: str, value: str) -> Test:
    number = _number(value)

    def test(record: Mapping[str, Any]) -> bool:
        found = find(record, field)
        if sign in _COMPARISONS:
            if found is MISSING or isinstance(found, bool):
                return False
            if number is not None and isinstance(found, int | float):
                return _COMPARISONS[sign](found, number)
            return isinstance(found, str) and _COMPARISONS[sign](found, value)
        same = found is not MISSING and (
            found == number if number is not None and isinstance(found, int | float) else _same(found, value)
        )
        return same is (sign != "!=")

    return test


def _same(found: Any, value: str) -> bool:
    if value in _WORDS and not isinstance(found, str):
        return found is _WORDS[value]
    return isinstance(found, str) and found == value


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _text(value: Any) -> str:
    return "" if value is MISSING or value is None else str(value)
