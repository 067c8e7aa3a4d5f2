"""JSON Schema (draft 2020-12) of the configuration, for editors that complete and check TOML (taplo, Even Better TOML).

It describes files as they are written, with variables. Loading checks more than a JSON Schema can express.
"""

from __future__ import annotations

from typing import Any

from ..section_tree import all_sections, keys_of
from ..sections import DEFAULT_TABLES, Config
from .key_docstrings import key_docstrings
from .written_values import FORMATS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = r"\$\{"
_ONE_VARIABLE = r"^\$\{[^}]*\}$"
_NO_TEXTS = ("integer", "number", "boolean", "array")
_TITLE = "Configuration of Umbel"


def json_schema(*, variables: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of one file, the main one or an included one, as values of JSON.

    With ``variables`` a number, a truth value or a list may be a text that is one variable.
    """
    raw = Config.model_json_schema(by_alias=True)
    for section in {place.model for place in all_sections()}:
        table = raw["$defs"].get(section.__name__, raw)
        texts = key_docstrings(section)
        for key, name in keys_of(section).items():
            if (text := texts.get(name)) is not None:
                table["properties"][key]["description"] = text
    definitions = {name: _section(table) for name, table in raw["$defs"].items()}
    top = _section(raw)
    if variables:
        for table in (*definitions.values(), top):
            table["properties"] = {key: _or_variable(value) for key, value in table["properties"].items()}
    properties = top["properties"]
    inherited: dict[str, Any] = {}
    for name, section in DEFAULT_TABLES.items():
        definition = definitions[section.__name__]
        partial = f"{section.__name__}Defaults"
        definitions[partial] = {key: value for key, value in definition.items() if key != "required"}
        description = f"Default values for the keys of every {name}. Tables are merged key by key."
        inherited[name] = {"$ref": f"#/$defs/{partial}", "description": description}
    defaults = {
        "type": "object",
        "description": "Default values for the keys of all upstreams and routes.",
        "additionalProperties": False,
        "properties": inherited,
    }
    return {
        "$schema": _DIALECT,
        "title": _TITLE,
        "description": "One file of a configuration, the main one or an included one.",
        "type": "object",
        "additionalProperties": False,
        "properties": {"include": properties.pop("include"), "defaults": defaults, **properties},
        "$defs": definitions,
    }


def _section(table: dict[str, Any]) -> dict[str, Any]:
    section = {key: value for key, value in table.items() if key not in ("title", "$defs")}
    section["properties"] = {key: _key(value) for key, value in table["properties"].items()}
    return section


def _key(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one key: without null, since TOML has none, and with the default in the unit of the key."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(branches) == 1:
        rest = {key: value for key, value in rest.items() if key != "title"} | branches[0]
    elif branches:
        rest["anyOf"] = [_value(branch) for branch in branches]
    default = rest.pop("default", None)
    titles = [rest.get("title", ""), *(branch.get("title", "") for branch in branches)]
    written = next((FORMATS[title] for title in titles if title in FORMATS), lambda value: value)
    value = _value(rest)
    if default is not None and "$ref" not in rest:
        value["default"] = default if isinstance(default, str) else written(default)
    return value


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a key that also accepts one variable. It changes only types that accept no text."""
    kinds = [branch.get("type") for branch in schema.get("anyOf", [schema])]
    if "$ref" in schema or "string" in kinds or not any(kind in _NO_TEXTS for kind in kinds):
        return schema
    about: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in about}
    return {"anyOf": [*(rest.get("anyOf") or [rest]), {"type": "string", "pattern": _ONE_VARIABLE}], **about}


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one type. A text that must be one of some words, or match a pattern, may hold a variable."""
    if schema.get("title") not in FORMATS:
        schema = {key: value for key, value in schema.items() if key != "title"}
    if "pattern" in schema:
        schema = schema | {"pattern": f"{schema['pattern']}|{_VARIABLE}"}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema = schema | {inner: _value(schema[inner])}
    if "patternProperties" in schema:
        inside = {pattern: _value(inner) for pattern, inner in schema["patternProperties"].items()}
        schema = schema | {"patternProperties": inside, "additionalProperties": False}
    if "discriminator" in schema:  # A keyword of OpenAPI; the constants of the variants say the same.
        schema = {key: value for key, value in schema.items() if key != "discriminator"}
    if "enum" in schema:
        words = {"enum": schema["enum"]}
        rest = {key: value for key, value in schema.items() if key != "enum"}
        return rest | {"anyOf": [words, {"pattern": _VARIABLE}]}
    return schema
