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
    """The unit of a key, one of ``FORMATS``; empty: it has none."""
    info = section.model_fields[attribute]
    inner = [each for argument in get_args(info.annotation) for each in getattr(argument, "__metadata__", ())]
    schemas = [each.json_schema for each in (*info.metadata, *inner) if isinstance(each, WithJsonSchema)]
    return next((str(schema["title"]) for schema in schemas if schema and "title" in schema), "")
