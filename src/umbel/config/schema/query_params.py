"""The tables ``query`` of a route: the query parameters that it reads, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import model_validator

from .constraints import ConstraintViolation, enforce
from .section import Section
from .values.types import JsonScalars, Separator

_TYPES: Mapping[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def _query_constraints(param: QueryParam) -> Iterator[ConstraintViolation]:
    """Yield the violations of a query parameter: a default of a wrong type, or of a required parameter."""
    default = param.default
    if param.split is not None and param.item_type is None:
        yield ConstraintViolation('split has an effect only with a list type, such as "list[str]"', ("split", "type"))
    if default is None:
        return
    if param.required:
        yield ConstraintViolation("a required parameter cannot have a default", ("default", "required"))
    if param.item_type is None:
        fits = has_type(default, param.type)
    else:
        fits = isinstance(default, tuple) and all(has_type(item, param.item_type) for item in default)
    if not fits:
        items = default if isinstance(default, tuple) else (default,)
        texts = param.type != "str" and any(isinstance(each, str) for each in items)
        hint = "; it is a text" if texts else ""
        yield ConstraintViolation(
            f'the default of a parameter of type "{param.type}" must have that type{hint}', ("default", "type")
        )


def has_type(value: object, name: str) -> bool:
    """Whether a value has a type of query parameters; a whole number is a float too, and a truth value no number."""
    return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))


class QueryParam(Section):
    """A query parameter of the client's request that a route reads."""

    type: Literal["str", "int", "float", "bool", "list[str]", "list[int]", "list[float]", "list[bool]"] = "str"
    """The type of the value. A text that is no such value gets 400. An int has 64 bits, as in most databases. A list
    has one item for each time that the client sends the parameter; of other types the last value counts."""
    split: Separator | None = None
    """A character that also separates the items of a list: with "," the value 1,2,3 has three items. Default: none."""
    default: JsonScalars = None
    """The value if the client does not send the parameter. Default: null; of a list: the empty list."""
    required: bool = False
    """Whether a request without the parameter gets 400."""

    _checked = model_validator(mode="after")(enforce(_query_constraints))

    @property
    def item_type(self) -> str | None:
        """The type of the items of a list; None: the parameter is no list."""
        return item_type_of(self.type)


def item_type_of(name: str) -> str | None:
    """The type of the items of a list type, such as ``int`` for ``list[int]``; None for another type."""
    return name[5:-1] if name.startswith("list[") else None
