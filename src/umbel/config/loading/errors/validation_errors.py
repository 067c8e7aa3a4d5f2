"""Translation of pydantic's validation errors to sentences, each with the path of the key that it is about.

A path is a path in the validated tree; ``MergedTree.origin`` finds the file and the line. A sentence shows no value,
with two exceptions, for which ``quotes`` is true: a wrong word where only certain words are allowed (``"GETT"``), and
the messages of the schema's own validators.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ....core.http.compressors import LEVELS
from ...hypercorn_toml.keys import WITHOUT_EFFECT, HypercornFile
from ...schema.access.auth import KINDS
from ...schema.compress import Compress
from ...schema.constraints import NO_CONSTRAINTS, BrokenConstraintsError
from ...schema.section import Section
from ...schema.section_tree import KIND, header, keys_of, section_at
from ...schema.sections import KeyPath, Server
from ..variables import REPORTED, holds_reported
from .did_you_mean import nearest, sections_with_key, suggestion

Kind = Literal["missing", "unknown", "value", "constraint", "reported"]


WRONG_TYPE = "needs"
"""The first word of the reason for a value of a wrong type."""
_LEVEL_KEYS = ("level", "levels", "compression_level", "quality")
"""Names under which other gateways configure the levels of compression."""


class SchemaViolation(NamedTuple):
    """A key that does not fit the schema. Kind ``reported``: a problem with its value has been reported already."""

    path: KeyPath
    kind: Kind
    reason: str = ""
    quotes: bool = False
    """Whether the reason may quote a value of the file."""
    about: KeyPath = ()
    """For kind ``constraint``: the keys of the table that the constraint is about."""


class _Error(NamedTuple):
    """An error of pydantic with its path in the data, without the words that pydantic adds to the path."""

    path: KeyPath
    unions: tuple[int, ...]
    """The lengths of ``path`` at which the schema has a union of types, the outermost first."""
    details: ErrorDetails


def schema_violations(
    model: type[Section], data: Any, at: KeyPath = (), *, constraints: bool = True
) -> list[SchemaViolation]:
    """Return all violations of the schema of ``model`` in ``data``; empty if pydantic accepts the data.

    If a key resembles a missing one, only the unknown key is returned, and not the missing one too.

    Args:
        at: the path of ``data`` in the file, for headers in messages. The paths of violations begin below it.
        constraints: whether the constraints between the keys of a table are checked.
    """
    try:
        model.model_validate(data, by_alias=True, by_name=False, context=None if constraints else NO_CONSTRAINTS)
    except ValidationError as error:
        errors = [_located(details, data) for details in error.errors(include_url=False)]
    else:
        return []
    section_of = partial(section_at, model, data=data)
    found = list(_translate(section_of, errors, at))
    meant = {
        (*each.path[:-1], nearest(str(each.path[-1]), keys_of(owner)))
        for each in found
        if each.kind == "unknown" and (owner := section_of(each.path[:-1]))
    }
    return [each for each in found if each.kind != "missing" or each.path not in meant]


def _located(details: ErrorDetails, data: Any) -> _Error:
    """Separate the keys in an error's location from the names that pydantic adds for the types of a union.

    A part of the location that the data has at this place is a key.
    """
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


_SectionOf = Callable[[KeyPath], type[Section] | None]
"""The section at a path of the data."""


def _translate(section_of: _SectionOf, errors: list[_Error], at: KeyPath, level: int = 0) -> Iterator[SchemaViolation]:
    """Translate errors, grouped by the union of types around them. ``level`` is the number of unions handled so far."""

    def union(error: _Error) -> KeyPath | None:
        return error.path[: error.unions[level]] if len(error.unions) > level else None

    for place, group in groupby(errors, key=union):
        if place is None:
            for error in group:
                yield from _one(section_of, error, at)
        else:
            yield from _of_union(section_of, place, list(group), at, level)


def _of_union(
    section_of: _SectionOf, place: KeyPath, group: list[_Error], at: KeyPath, level: int
) -> Iterator[SchemaViolation]:
    """Translate the errors of a value that fits no type of a union: only those of the type that was probably meant.

    It is the type for which pydantic found a mistake further inside, or for which a validator gave a message.
    """
    deeper = [error for error in group if len(error.path) > len(place)]
    by_validator = [error for error in group if error.details["type"] == "value_error"]
    if meant := deeper or by_validator:
        yield from _translate(section_of, meant, at, level + 1)
        return
    value = group[0].details["input"]
    if holds_reported(value):
        yield SchemaViolation(place, "reported")
        return
    needs = " or ".join(_needs(error.details) for error in group)
    yield SchemaViolation(place, "value", f"{WRONG_TYPE} {needs}, not {_type_name(value)}")


def _one(section_of: _SectionOf, error: _Error, at: KeyPath) -> Iterator[SchemaViolation]:
    path, details = error.path, error.details
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "missing":
        yield SchemaViolation(path, "missing", "is missing")
    elif kind == "extra_forbidden":
        yield SchemaViolation(path, "unknown", _unknown(section_of(path[:-1]), path, at))
    elif value is REPORTED or (section_of(path) is None and holds_reported(value)):
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
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        yield _wrong_kind(path, details)
    elif kind == "literal_error":
        yield SchemaViolation(
            path, "value", f"{WRONG_TYPE} {_needs(details)}, not {_quoted(value)}{_nearest_word(details)}", quotes=True
        )
    elif kind == "too_short":
        if len(value) < context["min_length"]:  # Otherwise pydantic has removed invalid items, which are reported.
            yield SchemaViolation(path, "value", "must not be empty")
    elif kind in _LIMITS:
        yield SchemaViolation(path, "value", f"must be {_LIMITS[kind]} {context[_LIMIT_KEYS[kind]]}")
    else:
        yield SchemaViolation(
            path, "value", f"{WRONG_TYPE} {_needs(details)}, not {_type_name(value)}{_brackets(details)}"
        )


def _wrong_kind(path: KeyPath, details: ErrorDetails) -> SchemaViolation:
    """Translate the error for a table whose ``kind``, which decides on its other keys, is wrong or missing."""
    words = " or ".join((", ".join(f'"{kind}"' for kind in KINDS[:-1]), f'"{KINDS[-1]}"'))
    if KIND not in details["input"]:
        return SchemaViolation((*path, KIND), "missing", f"is missing; write {words}")
    value = details["input"][KIND]
    if value is REPORTED:
        return SchemaViolation((*path, KIND), "reported")
    meant = suggestion(value, KINDS) if isinstance(value, str) else ""
    return SchemaViolation((*path, KIND), "value", f"{WRONG_TYPE} {words}, not {_quoted(value)}{meant}", quotes=True)


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
    "model_attributes_type": "a table",
}


def _needs(details: ErrorDetails) -> str:
    if details["type"] == "literal_error":
        return str(details["ctx"]["expected"]).replace("'", '"').replace("False", "false")
    return _NEEDS.get(details["type"], "another value")


def _type_name(value: object) -> str:
    """Return the type of a value in the words of TOML. The value itself may be secret."""
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


def _unknown(section: type[Section] | None, path: KeyPath, at: KeyPath) -> str:
    """Return the reason for an unknown key of ``section``, which is None where the schema has no section."""
    where = at + path[:-1]
    if section is None:  # Cannot happen: pydantic reports unknown keys only in a section.
        return "is not a key"
    key = str(path[-1])
    if section is Server and key in keys_of(HypercornFile) and key not in WITHOUT_EFFECT:
        return f"is not a key of {header(where)}; it belongs in hypercorn.toml"
    if section is Compress and key in _LEVEL_KEYS:
        levels = ", ".join(f"{coding} {level}" for coding, level in LEVELS.items())
        return f"is not a key of {header(where)}; each coding has a fixed level ({levels})"
    return f"is not a key of {header(where)}{suggestion(key, keys_of(section), sections_with_key(key, section))}"
