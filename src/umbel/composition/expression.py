"""JMESPath expressions: compiled once, with the names that they need known before they run.

They stand in ``shape``, ``each``, ``when``, ``with``, ``params``, ``json`` and ``form``. Evaluation is pure: it never
waits, and whatever goes wrong inside it is one exception.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
import jmespath.exceptions
import jmespath.functions
import msgspec

from ..errors import UmbelError
from ..events import Noted, Recorder
from ..kinds import Kind
from ..model import Failure, Json, RequestFacts
from .fault import Fault, Named, bad_request, described, fault_of, holders, names_of
from .interpreter import MAX_STEPS, Interpreter, TooManyStepsError

MAX_TEXT = 2**20
"""The most characters of a text that an expression joins."""


class ExpressionError(UmbelError):
    """An expression failed on the values it met. The text is for records: it may hold values."""

    def __init__(self, detail: str, where: tuple[str | int, ...], fault: Fault) -> None:
        super().__init__(detail)
        self.where = where
        self.fault = fault


def failed_expression(
    error: ExpressionError, where: str, facts: RequestFacts, recorder: Recorder, item: str = ""
) -> Failure:
    """The failure that a failed expression means: bad-request where a value is to blame, else internal.

    The client's mistake is its own (400), and needs no note. Anything else is noted with its place in the
    configuration, without a traceback: that would show the insides of JMESPath for what is a line of the configuration.
    ``item`` describes the client's list that ``item`` is from, if it is the client's.
    """
    fault, detail = error.fault, f"{where}: {error}"
    if client := described(fault.names, item):
        return bad_request(detail, client, f"cannot be used: {fault.reason}")
    recorder.record(Noted("error", "expression.failed", detail, facts, {"where": where}))
    return bad_request(detail, "", "") if fault.names else Failure.of(Kind.INTERNAL, detail)


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
            ExpressionError: whatever it met, or it takes more than ``MAX_STEPS`` steps. JMESPath raises even bare
                TypeErrors (null compared with a number).
        """
        try:
            return Interpreter(_OPTIONS).visit(self._parsed.parsed, context)
        except Exception as error:
            fault = fault_of(self._parsed.parsed, context, _OPTIONS, error)
            raise ExpressionError(f"{self.text!r}: {_reason(error)}", self.where, fault) from error

    def holders(self, context: Mapping[str, Json], value: Json) -> tuple[Named, ...]:
        """What the parts of the expression read that ``value``, a result of it on ``context``, comes from."""
        return holders(self._parsed.parsed, context, _OPTIONS, value)


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
    names = tuple(dict.fromkeys(names_of(parsed.parsed)))
    for function, given in _functions(parsed.parsed):
        _check_function(function, given)
    return Expression(text, names, where, parsed)


class _TooLongError(Exception):
    """A text that an expression makes is longer than ``MAX_TEXT``."""


class _OutOfRangeError(Exception):
    """A number that an expression makes is none of JSON's, or has more than ``_BITS_MAX`` bits."""


class _Functions(jmespath.functions.Functions):
    """JMESPath's functions and two of ours, for what projections cannot say: joining rows by place and by key."""

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": ["array", "null"]})
    def _func_zip(self, left: list[Json] | None, right: list[Json] | None) -> list[Json]:
        return [list(pair) for pair in zip(left or [], right or [], strict=False)]

    @jmespath.functions.signature({"types": []})
    def _func_to_number(self, value: Json) -> Json:
        """A number as it is, a text that is a number of JSON as that number, and null for anything else.

        JMESPath's own takes what only Python calls a number ("1_0", "nan", other scripts), and gives infinities.
        """
        if isinstance(value, str) and len(value) <= _NUMBER_MAX and _NUMBER.fullmatch(value):
            number = float(value) if _FRACTION.search(value) else int(value)
            return number if isinstance(number, int) or math.isfinite(number) else None
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @jmespath.functions.signature({"types": ["object", "null"]}, {"types": []})
    def _func_lookup(self, table: dict[str, Json] | None, key: Json) -> Json:
        return (table or {}).get(key_text(key))

    # jmespath's own, but for the bound: values of a client could make a text that is their lengths multiplied.
    @jmespath.functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, glue: str, texts: list[str]) -> str:
        if len(glue) * len(texts) + sum(map(len, texts)) > MAX_TEXT:
            raise _TooLongError
        return glue.join(texts)

    # jmespath's own raises a bare TypeError where a text is searched for what is no text.
    @jmespath.functions.signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: list[Json] | str, search: Json) -> bool:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        return search in subject

    # jmespath's own, but for the bound: what is beyond it has no form in JSON, or one that nobody reads.
    @jmespath.functions.signature({"types": ["array-number"]})
    def _func_sum(self, numbers: list[int | float]) -> int | float:
        total = sum(numbers)
        if not math.isfinite(total) if isinstance(total, float) else total.bit_length() > _BITS_MAX:
            raise _OutOfRangeError
        return total


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_FRACTION = re.compile(r"[.eE]")
_NUMBER_MAX = 309
"""The digits of the largest number that JSON is read with here; no float is larger."""
_BITS_MAX = 14_284
"""The largest number of so many bits has 4300 digits: Python writes, and msgspec reads, no longer ones."""
_FUNCTIONS = _Functions()
_OPTIONS = jmespath.Options(custom_functions=_FUNCTIONS)


def key_text(value: Json) -> str:
    """A value as the key of an object: text as it is, anything else as its JSON.

    Keys by JSON, not by Python's equality: 1, True and 1.0 are one dictionary key and three values.
    """
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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
    if isinstance(error, _OutOfRangeError):
        return "it makes a number that is out of range"
    if isinstance(error, TooManyStepsError):
        return f"it takes more than {MAX_STEPS} steps on these values"
    return type(error).__name__


def _functions(node: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if node["type"] == "function_expression":
        yield node["value"], len(node["children"])
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _functions(child)


def is_false(value: Json) -> bool:
    """False as JMESPath sees it: false, null, and what is empty; the number 0 is true."""
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)
