"""Query parameters of a route: parsed to the types that the configuration declares.

A malformed value is the client's mistake (400), and the response names the parameter. Undeclared parameters are ignored
and not decoded, because browsers and advertisers add parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from ...config.schema.sections import QueryParam
from ...core.errors import RequestError
from ...core.model import Json
from .urlencoded import BadFieldError, Names, read_fields

# Stricter than int() and float(), which accept "1_0", " 1", digits of any script and "nan".
_INT = re.compile(r"[+-]?[0-9]+")
_INT64_DIGITS = 19
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
"""The range of a whole number: 64 bits, as in TOML, databases and other languages."""
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


class _Param(NamedTuple):
    name: str
    parse: Callable[[str], Json]
    wanted: str
    default: Json
    required: bool
    is_list: bool
    split: str | None


class QueryRules:
    """Parser of the query parameters that one route declares."""

    def __init__(self, params: Mapping[str, QueryParam]) -> None:
        self._params = tuple(
            _Param(
                name,
                *_PARSERS[param.item_type or param.type],
                param.default,
                param.required,
                param.item_type is not None,
                param.split,
            )
            for name, param in params.items()
        )
        self._names = Names(params)
        self.declared = bool(params)
        """Whether the route declares any parameter."""

    def read(self, raw: bytes) -> Sequence[tuple[str, str]]:
        """The declared parameters in a raw query, decoded, in order.

        Raises:
            RequestError: 400, a declared parameter is not percent-encoded UTF-8.
        """
        if not raw or not self.declared:
            return ()
        try:
            return tuple(read_fields(raw, self._names))
        except BadFieldError as error:
            raise RequestError(400, f'The query parameter "{error}" is not percent-encoded UTF-8.') from error

    def values(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Json]:
        """The value of each declared parameter: of a list all in ``pairs``, else the last one; or the default.

        Without a default the value is null, of a list an empty one.

        Raises:
            RequestError: 400, a value is malformed or a required parameter is missing.
        """
        given = dict(pairs)
        return {
            param.name: _items(param, [text for name, text in pairs if name == param.name])
            if param.is_list
            else _value(param, given.get(param.name))
            for param in self._params
        }


def _value(param: _Param, text: str | None) -> Json:
    if text is None:
        if param.required:
            raise RequestError(400, f'The query parameter "{param.name}" is missing.')
        return param.default
    try:
        return param.parse(text)
    except ValueError as error:
        raise RequestError(400, f'The query parameter "{param.name}" must be {param.wanted}.') from error


def _items(param: _Param, texts: Sequence[str]) -> list[Json]:
    """The items of a list parameter. An empty text has no items if the parameter is split."""
    if not texts:
        if param.required:
            raise RequestError(400, f'The query parameter "{param.name}" is missing.')
        return list(cast("Sequence[Json]", param.default or ()))
    if (split := param.split) is not None:
        texts = [item for text in texts if text for item in text.split(split)]
    try:
        return [param.parse(text) for text in texts]
    except ValueError as error:
        raise RequestError(400, f'Each value of the query parameter "{param.name}" must be {param.wanted}.') from error


def _int(text: str) -> int:
    if _INT.fullmatch(text) is None:
        raise ValueError("not such a number")
    digits = text.lstrip("+-").lstrip("0") or "0"
    # int() refuses more than 4300 digits. More than 19 digits are out of range in any case.
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
