"""JMESPath expressions: compiled once, with the names that they need known before they run.

Used by the plan for ``shape``, ``each``, ``when``, ``with``, ``params``, ``json`` and ``form``. Evaluation is pure: it
never waits, and whatever goes wrong inside it is one exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jmespath
import jmespath.exceptions
import jmespath.functions
import msgspec

from ..errors import UmbelError
from ..model import Json

MAX_TEXT = 2**20
"""The most characters of a text that an expression joins."""


class Named(NamedTuple):
    """A name that an expression reads from the context, with the field that it reads of it (None: all of it)."""

    root: str
    field: str | None


class ExpressionError(UmbelError):
    """An expression failed on the values it met. The text is for records: it may hold values."""

    def __init__(self, detail: str, where: tuple[str | int, ...]) -> None:
        super().__init__(detail)
        self.where = where


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    ``names`` is what it evaluates against the context, so what must be there before it can run; the names inside
    filters and on the right of pipes, projections and dots belong to the values met there.
    """

    text: str
    names: tuple[Named, ...]
    where: tuple[str | int, ...]
    """The key that it stands under, for the record of a failure."""
    _parsed: Any

    def evaluate(self, context: Mapping[str, Json]) -> Json:
        """The expression's value.

        Raises:
            ExpressionError: whatever it met; JMESPath raises even bare TypeErrors (null compared with a number).
        """
        try:
            return self._parsed.search(context, options=_OPTIONS)
        except Exception as error:
            raise ExpressionError(f"{self.text!r}: {_reason(error)}", self.where) from error


def compile_expression(text: str, where: tuple[str | int, ...]) -> Expression:
    """Compile one expression.

    Raises:
        ValueError: it is no JMESPath, or reads the whole context (``@`` or ``*`` at the root).
    """
    try:
        parsed = jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as error:
        reason = str(error).partition("\n")[0].rstrip(" :")
        raise ValueError(f"not a JMESPath expression: {reason}") from error
    names = tuple(dict.fromkeys(_names(parsed.parsed)))
    for function, given in _functions(parsed.parsed):
        _check_function(function, given)
    return Expression(text, names, where, parsed)


class _TooLongError(Exception):
    """A text that an expression makes is longer than ``MAX_TEXT``."""


class _Functions(jmespath.functions.Functions):
    """JMESPath's functions and two of ours, for what projections cannot say: joining rows by place and by key."""

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": ["array", "null"]})
    def _func_zip(self, left: list[Json] | None, right: list[Json] | None) -> list[Json]:
        return [list(pair) for pair in zip(left or [], right or [], strict=False)]

    @jmespath.functions.signature({"types": ["object", "null"]}, {"types": []})
    def _func_lookup(self, table: dict[str, Json] | None, key: Json) -> Json:
        return (table or {}).get(key_text(key))

    # jmespath's own, but for the bound: values of a client could make a text that is their lengths multiplied.
    @jmespath.functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, glue: str, texts: list[str]) -> str:
        if len(glue) * len(texts) + sum(map(len, texts)) > MAX_TEXT:
            raise _TooLongError
        return glue.join(texts)


_FUNCTIONS = _Functions()
_OPTIONS = jmespath.Options(custom_functions=_FUNCTIONS)


def key_text(value: Json) -> str:
    """A value as the key of an object: text as it is, anything else as its JSON.

    Keys by JSON, not by Python's equality: 1, True and 1.0 are one dictionary key and three values.
    """
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# What a node's children are evaluated against: all of them against the same value as the node itself ...
_SAME_VALUE = frozenset(
    {
        "comparator",
        "or_expression",
        "and_expression",
        "not_expression",
        "multi_select_dict",
        "multi_select_list",
        "key_val_pair",
        "function_expression",
        "flatten",
    }
)
# ... or only the first, and the rest against what the first gave.
_FIRST_ONLY = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"}
)
_NOTHING = frozenset({"literal", "expref", "index", "slice"})


def _names(node: Mapping[str, Any]) -> Iterator[Named]:
    kind = node["type"]
    children = node["children"]
    if kind == "field":
        yield Named(node["value"], None)
    elif kind in ("current", "identity"):
        raise ValueError(
            "it reads the whole context (@, * or [] at the root); name a call, path, query, headers or body"
        )
    elif kind in _FIRST_ONLY:
        first = children[0]
        if kind == "subexpression" and first["type"] == "field":
            yield Named(first["value"], _first_field(children[1]))
        else:
            yield from _names(first)
    elif kind in _SAME_VALUE:
        for child in children:
            yield from _names(child)
    elif kind not in _NOTHING:
        raise ValueError(f"a JMESPath node of an unknown type, {kind}")


def _first_field(node: Mapping[str, Any]) -> str | None:
    """The field that a right side reads first, such as b of ``a.b[0]``; None where it reads more than one."""
    while node["type"] in _FIRST_ONLY:
        node = node["children"][0]
    return node["value"] if node["type"] == "field" else None


def _check_function(name: str, given: int) -> None:
    known = _FUNCTIONS.FUNCTION_TABLE.get(name)
    if known is None:
        near = difflib.get_close_matches(name, _FUNCTIONS.FUNCTION_TABLE, n=1)
        hint = f"; did you mean {near[0]}()?" if near else ""
        raise ValueError(f"JMESPath has no function {name}(){hint}")
    signature = known["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        least = "at least " if variadic else ""
        raise ValueError(f"{name}() takes {least}{len(signature)} argument{'s'[: len(signature) != 1]}, not {given}")


def _reason(error: Exception) -> str:
    """What went wrong, without the values that it went wrong with: they may be somebody's data."""
    if isinstance(error, jmespath.exceptions.JMESPathTypeError):
        return f"{error.function_name}() cannot take {error.actual_type}"
    if isinstance(error, _TooLongError):
        return f"it makes a text of more than {MAX_TEXT} characters"
    if isinstance(error, RecursionError):
        return "the values are nested too deeply"
    return type(error).__name__


def _functions(node: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if node["type"] == "function_expression":
        yield node["value"], len(node["children"])
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _functions(child)
