"""A route's query parameters: text to the types that the configuration declares.

Compiled once per route, run once per request. A value that does not parse is the client's mistake, and the answer names
the parameter. What the route does not know is ignored, whatever its bytes and however much of it there is: browsers,
proxies and advertisers add parameters of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...config.schema.sections import QueryParam
from ...core.errors import RequestError
from ...core.model import Json
from .urlencoded import BadFieldError, Names, read_fields

# Stricter than int() and float(), which take "1_0", " 1", digits of any script and "nan".
_INT = re.compile(r"[+-]?[0-9]+")
_INT64_DIGITS = 19
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
"""The range of a whole number: what TOML, databases and other languages hold in 64 bits."""
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


class _Param(NamedTuple):
    name: str
    parse: Callable[[str], Json]
    wanted: str
    default: Json
    required: bool


class QueryRules:
    """The parameters that one route declares. What its calls send on is sent byte for byte, and not read."""

    def __init__(self, params: Mapping[str, QueryParam]) -> None:
        self._params = tuple(
            _Param(name, *_PARSERS[param.type], param.default, param.required) for name, param in params.items()
        )
        self._names = Names(params)
        self.declared = bool(params)
        """Whether there is one."""

    def read(self, raw: bytes) -> Sequence[tuple[str, str]]:
        """The known parameters of a query as they came, decoded, in order.

        Raises:
            RequestError: 400, one of them is not percent-encoded UTF-8.
        """
        if not raw or not self.declared:
            return ()
        try:
            return tuple(read_fields(raw, self._names))
        except BadFieldError as error:
            raise RequestError(400, f'The query parameter "{error}" is not percent-encoded UTF-8.') from error

    def values(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Json]:
        """A value for each declared parameter: what came (the last of repeated ones), its default, or null.

        Raises:
            RequestError: 400, one does not parse or a required one is missing.
        """
        given = dict(pairs)
        return {param.name: _value(param, given.get(param.name)) for param in self._params}


def _value(param: _Param, text: str | None) -> Json:
    if text is None:
        if param.required:
            raise RequestError(400, f'The query parameter "{param.name}" is missing.')
        return param.default
    try:
        return param.parse(text)
    except ValueError as error:
        raise RequestError(400, f'The query parameter "{param.name}" must be {param.wanted}.') from error


def _int(text: str) -> int:
    if _INT.fullmatch(text) is None:
        raise ValueError("not such a number")
    digits = text.lstrip("+-").lstrip("0") or "0"
    # Python reads no more than 4300 digits, and these cannot fit.
    value = int(digits) if len(digits) <= _INT64_DIGITS else INT64_MAX + 2
    value = -value if text[0] == "-" else value
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError("out of range")
    return value


def _float(text: str) -> float:
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _bool(text: str) -> bool:
    value = _BOOLS.get(text.lower())
    if value is None:
        raise ValueError("not a truth value")
    return value


_PARSERS: Mapping[str, tuple[Callable[[str], Json], str]] = {
    "str": (str, "a text"),
    "int": (_int, f"a whole number from {INT64_MIN} to {INT64_MAX}"),
    "float": (_float, "a number"),
    "bool": (_bool, "true or false"),
}
