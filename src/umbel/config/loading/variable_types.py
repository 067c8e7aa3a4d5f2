"""Types of values that are one variable: ``max_body = "${LIMIT}"`` takes the type of the key.

A variable is a text. If the schema does not accept the text, the value is read as the schema may want it: as a truth
value or a number of TOML, or as a list whose items are separated by commas. The items are read in the same way.

The schema accepts a text as the default of each query parameter, because another key, ``type``, says what it must be.
Such a default is read as its ``type`` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from ..schema.query_params import has_type, item_type_of
from ..schema.section import Section
from ..schema.sections import KeyPath, QueryParam
from .errors.validation_errors import WRONG_TYPE, schema_violations
from .variables import VariableText

_LEVELS = 2
"""A value, and the items of a list."""
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_WORDS: Mapping[str, bool] = {"true": True, "false": False}


def give_types(model: type[Section], data: dict[str, Any]) -> None:
    """Give the values in ``data`` that are one variable the types that the schema of ``model`` wants; change ``data``.

    A value that fits in no form stays the text, so that the mistake is reported for what the file says. The schema is
    applied a fixed number of times, however many variables there are.
    """
    _give_types_to_defaults(data)
    for _ in range(_LEVELS):
        for form in (_scalar, _items):
            if not (places := _unfitting(model, data)):
                return
            tried = {path: (text, form(text)) for path, text in places.items()}
            for path, (text, value) in tried.items():
                _put(data, path, text if value is None else value)
            left = {each.path: each.reason for each in schema_violations(model, data, constraints=False)}
            for path, (text, _value) in tried.items():
                # Another reason, such as a limit, is about the value in its right type.
                if left.get(path, "").startswith(WRONG_TYPE):
                    _put(data, path, text)


def _give_types_to_defaults(data: dict[str, Any]) -> None:
    """Give the defaults of query parameters that are variables the types of their parameters.

    ``data`` is a configuration, or the table of one route. A default that does not fit stays a text.
    """
    routes = data.get("routes", [])
    for route in [data, *(routes if isinstance(routes, list) else ())]:
        query = route.get("query") if isinstance(route, dict) else None
        for param in query.values() if isinstance(query, dict) else ():
            kind = param.get("type", "str") if isinstance(param, dict) and "default" in param else None
            if kind is not None and kind in get_args(QueryParam.model_fields["type"].annotation):
                param["default"] = _default(param["default"], kind)


def _default(value: Any, kind: str) -> Any:
    item_kind = item_type_of(kind)
    if item_kind is None:
        return _of_kind(value, kind)
    items = _items(value) if isinstance(value, VariableText) else value
    return [_of_kind(item, item_kind) for item in items] if isinstance(items, list) else items


def _of_kind(value: Any, kind: str) -> Any:
    """A variable as a value of this type of query parameters; any other value, or one that does not fit, unchanged."""
    if not isinstance(value, VariableText) or kind == "str":
        return value
    typed = _scalar(value)
    return typed if typed is not None and has_type(typed, kind) else value


def make_plain(data: Any) -> Any:
    """Return ``data`` with each ``VariableText`` turned into a ``str``. Lists and tables are changed in place.

    To be called after the last ``give_types``. Encoders of JSON accept no subclass of ``str``.
    """
    if isinstance(data, dict):
        data.update({key: make_plain(value) for key, value in data.items()})
    elif isinstance(data, list):
        data[:] = [make_plain(value) for value in data]
    return str(data) if isinstance(data, VariableText) else data


def _unfitting(model: type[Section], data: dict[str, Any]) -> dict[KeyPath, VariableText]:
    """The places of the variables that the schema does not accept as texts, with their values."""
    found = {each.path: _at(data, each.path) for each in schema_violations(model, data, constraints=False)}
    return {path: value for path, value in found.items() if isinstance(value, VariableText)}


def _scalar(text: str) -> Any:
    """A truth value or a number, as TOML writes it; None: ``text`` is neither."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else None


def _items(text: str) -> Any:
    return [VariableText(item.strip()) for item in text.split(",")] if text.strip() else []


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):  # The path of a missing key.
            return None
    return data


def _put(data: Any, path: KeyPath, value: Any) -> None:
    _at(data, path[:-1])[path[-1]] = value
