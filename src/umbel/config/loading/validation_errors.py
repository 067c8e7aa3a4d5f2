"""Translation of pydantic's validation errors into plain sentences, each with the path of the key that it is about.

A path is one of keys in the tree; files and lines are the caller's. No sentence shows a value, but for one that names
one of a few allowed words (``"GETT"``) or is a validator's own (``quotes`` is then true).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..schema.constraints import NO_CONSTRAINTS, BrokenConstraintsError
from ..schema.section import Section
from ..schema.section_tree import header, keys_of, section_at
from ..schema.sections import KeyPath
from .did_you_mean import nearest, sections_with_key, suggestion
from .variables import REPORTED, holds_reported

Kind = Literal["missing", "unknown", "value", "constraint", "reported"]


class SchemaViolation(NamedTuple):
    """A key that does not fit the schema. Kind ``reported``: a problem with its value was reported before."""

    path: KeyPath
    kind: Kind
    reason: str = ""
    quotes: bool = False
    """Whether the sentence may quote a value of the file."""
    about: KeyPath = ()
    """Of a broken constraint: the keys of its table that the constraint is about."""


class _Error(NamedTuple):
    """One of pydantic's errors: its path without the words that pydantic adds, and the unions of types on it."""

    path: KeyPath
    unions: tuple[int, ...]
    """The lengths of the path at which a union stands, the outermost first."""
    details: ErrorDetails


def schema_violations(
    model: type[Section], data: Any, at: KeyPath = (), *, constraints: bool = True
) -> list[SchemaViolation]:
    """Return every violation of the schema of ``model`` by ``data``; none if pydantic accepts it.

    The paths are those within ``data``, whose header stands at ``at``. Without ``constraints`` those between the keys
    of a table are not checked. Of a mistake and its consequence only the mistake is returned: a key that misspells a
    missing one is not missing as well.
    """
    try:
        model.model_validate(data, by_alias=True, by_name=False, context=None if constraints else NO_CONSTRAINTS)
    except ValidationError as error:
        errors = [_located(details, data) for details in error.errors(include_url=False)]
    else:
        return []
    found = list(_translate(model, errors, at))
    meant = {
        (*each.path[:-1], nearest(str(each.path[-1]), keys_of(owner)))
        for each in found
        if each.kind == "unknown" and (owner := section_at(model, each.path[:-1]))
    }
    return [each for each in found if each.kind != "missing" or each.path not in meant]


def _located(details: ErrorDetails, data: Any) -> _Error:
    """Split the error's location by a walk along the data: a part that is not there is pydantic's name of a branch."""
    path: KeyPath = ()
    unions: tuple[int, ...] = ()
    here = data
    loc = details["loc"]
    for index, part in enumerate(loc):
        if _has(here, part):
            here = here[part]
        elif details["type"] == "missing" and index == len(loc) - 1:
            pass
        else:
            if part != "[key]":
                unions = (*unions, len(path))
            continue
        path = (*path, part)
    return _Error(path, unions, details)


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _translate(model: type[Section], errors: list[_Error], at: KeyPath, level: int = 0) -> Iterator[SchemaViolation]:
    """Translate errors, grouped by the union around them; ``level`` is how many unions further out are dealt with."""

    def union(error: _Error) -> KeyPath | None:
        return error.path[: error.unions[level]] if len(error.unions) > level else None

    for place, group in groupby(errors, key=union):
        if place is None:
            for error in group:
                yield from _one(model, error, at)
        else:
            yield from _of_union(model, place, list(group), at, level)


def _of_union(
    model: type[Section], place: KeyPath, group: list[_Error], at: KeyPath, level: int
) -> Iterator[SchemaViolation]:
    """Translate the errors of a value that fits no type of a union: those of the type that was meant."""
    deeper = [error for error in group if len(error.path) > len(place)]
    by_validator = [error for error in group if error.details["type"] == "value_error"]
    if meant := deeper or by_validator:
        yield from _translate(model, meant, at, level + 1)
        return
    value = group[0].details["input"]
    if holds_reported(value):
        yield SchemaViolation(place, "reported")
        return
    needs = " or ".join(_needs(error.details) for error in group)
    yield SchemaViolation(place, "value", f"needs {needs}, not {_type_name(value)}")


def _one(model: type[Section], error: _Error, at: KeyPath) -> Iterator[SchemaViolation]:
    path, details = error.path, error.details
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "missing":
        yield SchemaViolation(path, "missing", "is missing")
    elif kind == "extra_forbidden":
        yield SchemaViolation(path, "unknown", _unknown(model, path, at))
    elif value is REPORTED or (section_at(model, path) is None and holds_reported(value)):
        yield SchemaViolation(path, "reported")
    elif kind == "value_error":
        broken = context["error"]
        if isinstance(broken, BrokenConstraintsError):
            yield from (
                SchemaViolation((*path, each.keys[0]), "constraint", each.reason, True, each.keys)
                for each in broken.violations
            )
        else:
            yield SchemaViolation(path, "value", str(broken), quotes=True)
    elif kind == "literal_error":
        yield SchemaViolation(
            path, "value", f"needs {_needs(details)}, not {_quoted(value)}{_nearest_word(details)}", quotes=True
        )
    elif kind == "too_short":
        if len(value) < context["min_length"]:  # else its invalid items are reported
            yield SchemaViolation(path, "value", "must not be empty")
    elif kind in _LIMITS:
        yield SchemaViolation(path, "value", f"must be {_LIMITS[kind]} {context[_LIMIT_KEYS[kind]]}")
    else:
        yield SchemaViolation(path, "value", f"needs {_needs(details)}, not {_type_name(value)}{_brackets(details)}")


_LIMITS = {"greater_than_equal": "at least", "less_than_equal": "at most"}
_LIMIT_KEYS = {"greater_than_equal": "ge", "less_than_equal": "le"}

_NEEDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


def _needs(details: ErrorDetails) -> str:
    if details["type"] == "literal_error":
        return str(details["ctx"]["expected"]).replace("'", '"').replace("False", "false")
    return _NEEDS.get(details["type"], "another value")


def _type_name(value: object) -> str:
    """Return the type of a value as readers of TOML call it; the value itself may be secret."""
    if isinstance(value, bool):
        return str(value).lower()
    for types, name in (
        (str, "a text"),
        (int, "a whole number"),
        (float, "a number with a point"),
        (list, "a list"),
        (dict, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    ):
        if isinstance(value, types):
            return name
    return "this"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else _type_name(value)


def _nearest_word(details: ErrorDetails) -> str:
    words = str(details["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
    return suggestion(details["input"], words) if isinstance(details["input"], str) else ""


def _brackets(details: ErrorDetails) -> str:
    value = details["input"]
    if details["type"] == "tuple_type" and isinstance(value, str | int):
        return "; put it in square brackets"
    if details["type"] == "model_type" and isinstance(value, list) and value and isinstance(value[0], dict):
        return "; its header has single brackets"
    return ""


def _unknown(model: type[Section], path: KeyPath, at: KeyPath) -> str:
    section = section_at(model, path[:-1])
    where = at + path[:-1]
    if section is None:  # cannot be: pydantic calls a key unknown only in a section
        return "is not a key"
    key = str(path[-1])
    return f"is not a key of {header(where)}{suggestion(key, keys_of(section), sections_with_key(key, section))}"
