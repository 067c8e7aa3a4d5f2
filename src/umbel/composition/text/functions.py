"""Functions of JMESPath expressions: the library's, two additional ones, and bounded versions of some.

A function raises on a value that its signature does not accept; ``interpreter.py`` turns that into null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jmespath
import jmespath.functions
import msgspec

from ...core.model import Json

MAX_TEXT = 2**20
"""The maximum number of characters of a text that join() makes."""


class TooLongError(Exception):
    """An expression would make a text of more than ``MAX_TEXT`` characters."""


class OutOfRangeError(Exception):
    """An expression would make a number that JSON cannot hold, or that has more than ``_BITS_MAX`` bits."""


class _Functions(jmespath.functions.Functions):
    """JMESPath's functions, with zip() and lookup(), which join rows by index and by key."""

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

    # jmespath's own checks the type of the first table only, and takes lists of pairs and empty texts for tables.
    @jmespath.functions.signature({"types": ["object"], "variadic": True})
    def _func_merge(self, *tables: Json) -> dict[str, Json]:
        merged: dict[str, Json] = {}
        for table in tables:
            if not isinstance(table, dict):
                raise TypeError("merge() of what is no object")
            merged |= table
        return merged

    # jmespath's own, but for the bound: values of a client could make a text that is their lengths multiplied.
    @jmespath.functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, glue: str, texts: list[str]) -> str:
        if len(glue) * len(texts) + sum(map(len, texts)) > MAX_TEXT:
            raise TooLongError
        return glue.join(texts)

    # jmespath's own raises a bare TypeError where a text is searched for what is no text, and finds 1 where true is.
    @jmespath.functions.signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: list[Json] | str, search: Json) -> bool:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        if isinstance(search, (bool, int, float)):
            is_bool = isinstance(search, bool)
            return any(one == search for one in subject if isinstance(one, bool) is is_bool)
        return search in subject

    # jmespath's own, but for the bound: a larger number cannot be written as JSON, or cannot be read by msgspec.
    @jmespath.functions.signature({"types": ["array-number"]})
    def _func_sum(self, numbers: list[int | float]) -> int | float:
        try:
            total = sum(numbers)
        except OverflowError as error:  # An integer that is larger than any float, beside a float.
            raise OutOfRangeError from error
        if not math.isfinite(total) if isinstance(total, float) else total.bit_length() > _BITS_MAX:
            raise OutOfRangeError
        return total

    @jmespath.functions.signature({"types": ["array-number"]})
    def _func_avg(self, numbers: list[int | float]) -> float | None:
        try:
            return self._func_sum(numbers) / len(numbers) if numbers else None
        except OverflowError as error:
            raise OutOfRangeError from error


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_FRACTION = re.compile(r"[.eE]")
_NUMBER_MAX = 309
"""The digits of the largest number that JSON is read with here; no float is larger."""
_BITS_MAX = 14_284
"""The largest number of so many bits has 4300 digits, the most that Python writes and msgspec reads."""
FUNCTIONS = _Functions()
OPTIONS = jmespath.Options(custom_functions=FUNCTIONS)


def argument_types(function: str, place: int) -> Sequence[str]:
    """The JMESPath types that a function accepts as its argument number ``place``; empty: any value."""
    signature = FUNCTIONS.FUNCTION_TABLE[function]["signature"]
    types: Sequence[str] = signature[min(place, len(signature) - 1)]["types"]
    return types


def key_text(value: Json) -> str:
    """The object key for a value: text as it is, anything else as its JSON.

    Keys by JSON, not by Python's equality: 1, True and 1.0 are one dictionary key and three values.
    """
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
