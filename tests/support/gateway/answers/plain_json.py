"""Events and answers as plain JSON, equal in each run, with each Python version and on each machine."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

WIDTH = 120
_NO_DEFAULT = object()


def plain(value: Any) -> Any:
    """Convert a value of an event to JSON. Members that have their default are left out.

    Raises:
        TypeError: this function has no conversion for the type.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, msgspec.Raw):
        return plain(msgspec.json.decode(value))
    if isinstance(value, BaseException):
        return {"class": type(value).__name__, "text": str(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if (members := _members(value)) is not None:
        return {name: plain(one) for name, one, default in members if one is not default and one != default}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    raise TypeError(f"plain() has no conversion for {type(value).__name__}; add one")


def text(data: bytes) -> str:
    """Decode bytes as UTF-8; each invalid byte becomes ``\\xnn``."""
    return data.decode(errors="backslashreplace")


def _members(value: Any) -> list[tuple[str, Any, Any]] | None:
    """Name, value and default of each member of a named tuple, a dataclass or a struct; None for anything else."""
    kind: Any = type(value)
    defaults = _defaults(kind)
    return None if defaults is None else [(name, getattr(value, name), default) for name, default in defaults]


@cache
def _defaults(kind: Any) -> list[tuple[str, Any]] | None:
    if not (hasattr(kind, "_fields") or dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
        return None
    parameters = inspect.signature(kind).parameters.values()
    return [(p.name, _NO_DEFAULT if p.default is inspect.Parameter.empty else p.default) for p in parameters]


def written(value: Any) -> str:
    """Encode as JSON with each array and object on one line if it fits, so that a difference is easy to read."""
    return "".join(_written(value, "", 0)) + "\n"


def _written(value: Any, indent: str, before: int) -> Iterator[str]:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list | dict) or len(indent) + before + len(line) < WIDTH:
        yield line
        return
    inner = indent + " "
    opening, closing = "[]" if isinstance(value, list) else "{}"
    yield opening + "\n"
    members: list[tuple[str, Any]] = (
        [("", one) for one in value]
        if isinstance(value, list)
        else [(json.dumps(name, ensure_ascii=False) + ": ", one) for name, one in value.items()]
    )
    for number, (name, one) in enumerate(members):
        yield inner + name
        yield from _written(one, inner, len(name))
        yield "\n" if number + 1 == len(members) else ",\n"
    yield indent + closing
