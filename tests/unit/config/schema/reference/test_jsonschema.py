"""The JSON Schema accepts the files that the loader accepts."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.support.gateway.configs import GOOD, UPSTREAM
from tests.support.source.jsonschema import conforms
from umbel.config.loading.errors.error_recovery import PLACEHOLDERS
from umbel.config.schema.reference.jsonschema import json_schema
from umbel.config.schema.section_tree import all_sections, keys_of

SCHEMA = json_schema()
SAMPLE = Path(umbel.__file__).parent / "demo" / "umbel.toml"


def is_valid(text: str) -> bool:
    return conforms(tomllib.loads(text), SCHEMA, SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD,
        UPSTREAM + 'deadline_header = false\ntls = { ca = "x" }\ntimeout = "1.5s"\n',
        'include = ["a"]\n[defaults.upstream]\ntimeout = "1s"\n[defaults.route]\nanswer.status = 201\n',
        '[[routes]]\npath = "/"\nquery = ["a"]\ncalls.c = { upstream = "u", path = "/", json = { a = "b" } }\n',
        '[[routes]]\npath = "/"\nquery.a = { default = 1 }\ncalls.c = { upstream = "u", path = "/", default = [1] }\n',
        '[defaults.route]\ndeadline = "${D:-1s}"\nmax_body = "${B}"\nbody = "${BODY}"\nmethods = ["${M}"]\n',
    ],
)
def test_valid_files_conform_to_the_schema(text: str) -> None:
    assert is_valid(text)


def test_the_sample_configuration_conforms_to_the_schema() -> None:
    assert is_valid(SAMPLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "banana = 1",
        UPSTREAM + "timout = 1",
        UPSTREAM + 'timeout = "5"',
        UPSTREAM + "max_queue = -1",
        UPSTREAM + "deadline_header = true",
        "[upstreams.u]",
        '[upstreams."a b"]\nurls = ["http://h"]',
        "[upstreams.u]\nurls = []",
        "[defaults.upstream]\nbanana = 1",
        "[defaults.banana]",
        '[[routes]]\npath = "/"\ncalls = {}',
        '[[routes]]\npath = "/"\ncalls.c = { upstream = "u", path = "/", as = "set" }',
        '[[routes]]\npath = "/"\nanswer.status = 500\ncalls.c = { upstream = "u", path = "/" }',
        "[server]\nmax_body = 5",
    ],
)
def test_files_with_mistakes_do_not_conform_to_the_schema(text: str) -> None:
    assert not is_valid(text)


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    for table in (SCHEMA, *SCHEMA["$defs"].values()):
        yield from table["properties"].items()


def test_every_key_has_a_description_an_editor_can_show() -> None:
    of_sections = {f"#/$defs/{name}" for name, table in SCHEMA["$defs"].items() if table.get("description")}
    assert [
        key for key, value in properties() if not value.get("description") and value.get("$ref") not in of_sections
    ] == []


def test_defaults_have_the_units_of_files_and_conform() -> None:
    defaults = {key: value["default"] for key, value in properties() if "default" in value}
    assert defaults["connect_timeout"] == "1s"
    assert defaults["max_head"] == "64KiB"
    assert defaults["flush_every"] == "250ms"
    for key, value in properties():
        assert "default" not in value or conforms(value["default"], value, SCHEMA), key


def test_a_file_is_a_closed_object_and_null_appears_nowhere() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert all(table["additionalProperties"] is False for table in (SCHEMA, *SCHEMA["$defs"].values()))
    assert "null" not in str(SCHEMA).replace("null_on", "").replace("default_null", "").replace(" null", "")


def test_every_required_key_has_a_placeholder() -> None:
    required = {
        key
        for place in all_sections()
        for key, name in keys_of(place.model).items()
        if place.model.model_fields[name].is_required()
    }
    assert required == PLACEHOLDERS.keys()


def test_patterns_have_only_what_ecma_262_knows() -> None:
    """Editors read patterns as ECMAScript: ``\\A`` is the letter A there, and possessive quantifiers are an error."""
    found = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(json_schema()))
    assert found
    for pattern in set(found):
        assert not re.search(r"\\\\[AZz]|[*+?}]\+|\(\?P|\(\?>", pattern), pattern
