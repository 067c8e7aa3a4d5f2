"""A validator for the part of JSON Schema (draft 2020-12) that Umbel's schema uses.

Tests compare its result with the configuration loader's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
KNOWN = frozenset(
    {"$schema", "$defs", "$ref", "title", "description", "default", "examples", "type", "enum", "const"}
    | {"anyOf", "oneOf"}
    | {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "items", "minItems"}
    | {"pattern", "minimum", "maximum", "minLength", "maxLength"}
)


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Return whether ``value`` is valid.

    Args:
        value: the JSON value.
        schema: the schema, or a part of it.
        root: the whole schema, for references.

    Raises:
        AssertionError: the schema has a keyword that this validator does not implement.
    """
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    if "$ref" in schema and not conforms(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    return (
        ("type" not in schema or _TYPES[schema["type"]](value))
        and ("enum" not in schema or value in schema["enum"])
        and ("const" not in schema or (type(value), value) == (type(schema["const"]), schema["const"]))
        and ("anyOf" not in schema or any(conforms(value, branch, root) for branch in schema["anyOf"]))
        and ("oneOf" not in schema or sum(conforms(value, branch, root) for branch in schema["oneOf"]) == 1)
        and (not isinstance(value, str) or re.search(schema.get("pattern", ""), value) is not None)
        and (not isinstance(value, str) or schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9))
        and (not isinstance(value, int) or schema.get("minimum", value) <= value <= schema.get("maximum", value))
        and (not isinstance(value, list) or _list_conforms(value, schema, root))
        and (not isinstance(value, dict) or _object_conforms(value, schema, root))
    )


def _list_conforms(value: list[Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    return len(value) >= schema.get("minItems", 0) and all(
        conforms(inner, schema.get("items", {}), root) for inner in value
    )


def _object_conforms(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    def of(key: str) -> Any:
        if key in schema.get("properties", {}):
            return schema["properties"][key]
        for pattern, inner in schema.get("patternProperties", {}).items():
            if re.search(pattern, key):
                return inner
        return schema.get("additionalProperties", True)

    return (
        set(schema.get("required", ())) <= value.keys()
        and len(value) >= schema.get("minProperties", 0)
        and all(
            inner if isinstance(inner, bool) else conforms(value[key], inner, root)
            for key, inner in ((key, of(key)) for key in value)
        )
    )
