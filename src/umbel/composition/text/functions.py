"""Functions of JMESPath expressions: those of the library, two more (zip, lookup), and bounded versions of some.

A function raises an error for a value that its signature does not accept. ``interpreter.py`` makes null of that error.
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
"""The most characters of a text that join() makes."""


class TooLongError(Exception):
    """An expression would make a text of more than ``MAX_TEXT`` characters."""


class OutOfRangeError(Exception):
    """An expression would make a number that JSON cannot hold, or that has more than ``_BITS_MAX`` bits."""


class _Functions(jmespath.functions.Functions):
    """JMESPath's functions with zip(), which pairs the items of two lists, and lookup(), which takes a computed key."""

    @jmespath.functions.signature({"types": ["array", "null"]}, {"types": ["array", "null"]})
    def _func_zip(self, left: list[Json] | None, right: list[Json] | None) -> list[Json]:
        return [list(pair) for pair in zip(left or [], right or [], strict=False)]

    @jmespath.functions.signature({"types": []})
    def _func_to_number(self, value: Json) -> Json:
        """Convert a text that is a JSON number; return a number unchanged, and None for any other value.

        The library's function accepts all numbers of Python ("1_0", "nan", digits of other scripts), and gives
        infinities.
        """
        if isinstance(value, str) and len(value) <= _NUMBER_MAX and _NUMBER.fullmatch(value):
            number = float(value) if _FRACTION.search(value) else int(value)
            return number if isinstance(number, int) or math.isfinite(number) else None
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @jmespath.functions.signature({"types": ["object", "null"]}, {"types": []})
    def _func_lookup(self, table: dict[str, Json] | None, key: Json) -> Json:
        return (table or {}).get(key_text(key))

    # The library's function checks only the type of the first argument, and accepts lists of pairs and empty texts.
    @jmespath.functions.signature({"types": ["object"], "variadic": True})
    def _func_merge(self, *tables: Json) -> dict[str, Json]:
        merged: dict[str, Json] = {}
        for table in tables:
            if not isinstance(table, dict):
                raise TypeError("merge() takes only objects")
            merged |= table
        return merged

    # Bounded: a client could cause a text whose length is the product of the lengths of its values.
    @jmespath.functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, glue: str, texts: list[str]) -> str:
        if len(glue) * len(texts) + sum(map(len, texts)) > MAX_TEXT:
            raise TooLongError
        return glue.join(texts)

    # The library's function raises a bare TypeError for a text and a search that is no text, and finds 1 in [true].
    @jmespath.functions.signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: list[Json] | str, search: Json) -> bool:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        if isinstance(search, (bool, int, float)):
            is_bool = isinstance(search, bool)
            return any(one == search for one in subject if isinstance(one, bool) is is_bool)
        return search in subject

    # Bounded: a larger number cannot be written as JSON, or cannot be read by msgspec.
    @jmespath.functions.signature({"types": ["array-number"]})
    def _func_sum(self, numbers: list[int | float]) -> int | float:
        try:
            total = sum(numbers)
        except OverflowError as error:  # An integer beyond the range of floats is added to a float.
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
"""The most characters of a number in a text: as many as the digits of the largest float."""
_BITS_MAX = 14_284
"""The most bits of a number: it then has at most 4300 digits, which Python can write and msgspec can read."""
FUNCTIONS = _Functions()
OPTIONS = jmespath.Options(custom_functions=FUNCTIONS)


def argument_types(function: str, place: int) -> Sequence[str]:
    """The JMESPath types that a function accepts as its argument number ``place``, from 0; empty: any value."""
    signature = FUNCTIONS.FUNCTION_TABLE[function]["signature"]
    types: Sequence[str] = signature[min(place, len(signature) - 1)]["types"]
    return types


def key_text(value: Json) -> str:
    """The object key for a value: a text is its own key, and the key of any other value is its JSON.

    JSON distinguishes 1, True and 1.0, which are one and the same key of a Python dict.
    """
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
