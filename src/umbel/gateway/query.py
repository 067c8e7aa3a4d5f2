"""A route's query parameters: text to the types that the configuration declares.

Compiled once per route by ``inputs.py``, run once per request. A value that does not parse is the client's mistake, and
the answer names the parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from ..config.schema import QueryParam
from ..errors import RequestError
from ..model import Json

PARAMS_MAX = 1000

# Stricter than int() and float(), which take "1_0", " 1", digits of any script and "nan"; 18 digits fit any int64.
_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


class _Param(NamedTuple):
    name: str
    parse: Callable[[str], Json]
    wanted: str
    default: Json
    required: bool


def parse_query(raw: bytes) -> Sequence[tuple[str, str]]:
    """Every parameter as it came, decoded, in order.

    Raises:
        RequestError: 400, the query is not percent-encoded UTF-8 or has too many parameters.
    """
    if not raw:
        return ()
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMS_MAX)
    except ValueError as error:
        raise RequestError(
            400, f"The query is not percent-encoded UTF-8 of at most {PARAMS_MAX} parameters."
        ) from error


class QueryRules:
    """The declared parameters of one route."""

    def __init__(self, params: Mapping[str, QueryParam]) -> None:
        self._params = tuple(
            _Param(name, *_PARSERS[param.type], param.default, param.required) for name, param in params.items()
        )

    def values(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Json]:
        """A value for each declared parameter: what came (the last of repeated ones), its default, or null.

        Raises:
            RequestError: 400, one does not parse or a required one is missing.
        """
        if not self._params:
            return {}
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
    return int(text)


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
    "int": (_int, "a whole number of at most 18 digits"),
    "float": (_float, "a number"),
    "bool": (_bool, "true or false"),
}
