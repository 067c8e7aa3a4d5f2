"""``umbel schema``, and the reference made from the schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from click.testing import CliRunner

from tests.support.gateway.configs import loaded
from tests.support.source.jsonschema import conforms
from umbel.cli import main
from umbel.config.schema.reference.jsonschema import json_schema
from umbel.config.schema.section_tree import all_sections, keys_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "config.md"


def printed(*options: str) -> str:
    result = CliRunner().invoke(main, ["schema", *options])
    assert result.exit_code == 0
    return result.stdout


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(printed()) == json_schema()


def test_the_reference_in_docs_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == printed("--markdown"), "run: umbel schema --markdown > docs/config.md"


def test_the_reference_names_every_section_and_every_key_once() -> None:
    sections = printed("--markdown").split("\n### ")[1:]
    for place in all_sections():
        variant = f" with `{place.variant}`" if place.variant else ""
        title = f"`{place.header}`{variant}" if place.header else "The top of the file"
        (section,) = (section for section in sections if title in section.partition("\n")[0])
        for key in keys_of(place.model):
            assert section.count(f"\n| `{key}` |") == 1, (place.header, key)


def test_every_table_of_the_reference_has_four_columns() -> None:
    rows = [line for line in printed("--markdown").split("\n") if line.startswith("| `") and "`[[" not in line]
    sections = [row for row in rows if len(re.findall(r"(?<!\\)\|", row)) not in (3, 5)]
    assert sections == []


def test_the_examples_of_the_reference_are_valid(tmp_path: Path) -> None:
    first, second = re.findall(r"```toml\n(.*?)```", printed("--markdown"), re.DOTALL)
    assert loaded(tmp_path, first).routes[0].path == "/hello/<user_id>"
    config = loaded(tmp_path, second, {"routes/a.toml": '[upstreams.u]\nurls = ["http://h"]\n'}, {"API_KEY": "k"})
    assert config.upstreams["u"].timeout == 0.5
    assert config.upstreams["u"].headers == {"authorization": "Bearer k"}
    assert conforms(tomllib.loads(second), json_schema(), json_schema())
