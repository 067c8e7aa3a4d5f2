"""Values of keys as a configuration file writes them: numbers with the unit of their key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import WithJsonSchema

from ..section import Section
from ..values.units import format_duration, format_rate, format_ratio, format_size

FORMATS: Mapping[str, Callable[[Any], str]] = {
    "duration": format_duration,
    "size": format_size,
    "rate": format_rate,
    "ratio": format_ratio,
}
"""By unit: the text for a value in the base unit, such as ``1.5s`` for 1.5."""


def unit_of(section: type[Section], attribute: str) -> str:
    """The unit of the numbers of a key, one of ``FORMATS``; empty: they have none.

    That of a key with several types, such as ``duration or percentile``, is the first one.
    """
    info = section.model_fields[attribute]
    inner = [each for argument in get_args(info.annotation) for each in getattr(argument, "__metadata__", ())]
    schemas = [each.json_schema for each in (*info.metadata, *inner) if isinstance(each, WithJsonSchema)]
    title = next((str(schema["title"]) for schema in schemas if schema and "title" in schema), "")
    unit = title.partition(" or ")[0]
    return unit if unit in FORMATS else ""
