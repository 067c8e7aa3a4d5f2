"""The configuration loader with random files: it returns a configuration or plain error lines, and never crashes."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.gateway.configs import mistakes
from umbel.config.loading.errors.line_numbers import LineNumbers
from umbel.config.schema.section_tree import all_sections, keys_of

SAMPLE = """
[defaults.upstream]
timeout = "1s"
[upstreams.u]
urls = ["http://h"]
headers = { x-a = "a" }
tls = { server_name = "h" }
[[routes]]
path = "/r/<id>"
methods = ["POST"]
query.n = { type = "int", default = 1 }
[routes.calls.c]
upstream = "u"
path = "/{id}"
optional = true
default = {}
[routes.calls.d]
upstream = "u"
path = "/{item}"
each = "c"
json = { a = "body" }
[routes.answer]
shape = "{a: c}"
forward_headers = { c = ["etag"] }
[server]
trusted_proxies = ["10.0.0.0/8"]
[logs]
access = { file = "a" }
"""
KNOWN = {key for place in all_sections() for key in keys_of(place.model)}
KEYS = sorted(KNOWN | {"item", "a b", "NAME", "json_", "\n"})
LINE = re.compile(r"umbel\.toml(:\d+)?: [^\n]+")
JARGON = re.compile(
    r"pydantic|input should|valid |value error|nonetype|<class|\bstr\b|dict\[|traceback|reported", re.IGNORECASE
)
# All examples share one directory, and each overwrites the file.
FIXTURE_IS_SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

texts = st.sampled_from(
    ["1s", "1MB", "/", "u", "${NOPE}", "${", "http://h", "GET", "all", "quorum", "{?x}", "c.d", "\0"]
)
scalars = st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | texts | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """The sample with up to four changes: a value replaced, removed or added."""
    data = tomllib.loads(SAMPLE)
    for _ in range(draw(st.integers(1, 4))):
        here: Any = data
        while True:
            key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else list(range(len(here)))))
            inner = here[key]
            if not inner or not isinstance(inner, dict | list) or draw(st.booleans()):
                break
            here = inner
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove" and len(here) > 1:
            del here[key]
        elif action == "add" and isinstance(here, dict):
            here[draw(st.sampled_from(KEYS))] = draw(values)
        else:
            here[key] = draw(values)
    return data


@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURE_IS_SHARED)
@given(data=spoilt())
def test_any_value_at_any_key_is_accepted_or_reported_in_plain_lines(data: dict[str, Any], tmp_path: Path) -> None:
    text = "\n".join(f"{quoted(key)} = {toml(value)}" for key, value in data.items())
    said = mistakes(tmp_path, text)
    assert len(set(said)) == len(said)
    for line in said:
        assert LINE.fullmatch(line), line
        reason = line.split(": ", 2)[2] if line.count(": ") > 1 else line
        assert not JARGON.search(re.sub(r'"[^"]*"', "", reason)), line


@settings(max_examples=100, deadline=None, suppress_health_check=FIXTURE_IS_SHARED)
@given(noise=st.binary(max_size=40), at=st.integers(0, len(SAMPLE)))
def test_random_bytes_within_a_file_never_crash_the_loader(noise: bytes, at: int, tmp_path: Path) -> None:
    path = tmp_path / "umbel.toml"
    content = SAMPLE.encode()
    said = mistakes(tmp_path, "", {path.name: content[:at] + noise + content[at:]})
    assert all(LINE.fullmatch(line) for line in said)


@settings(max_examples=100, deadline=None)
@given(table=st.dictionaries(st.text(min_size=1, max_size=5), scalars, min_size=1, max_size=6))
def test_line_numbers_of_a_random_table_are_those_of_its_text(table: dict[str, Any]) -> None:
    lines = ["# a comment", '[t."x y"]']
    places: dict[str, int] = {}
    for key, value in table.items():
        places[key] = len(lines) + 1
        lines += f"{quoted(key)} = [ # here\n  {toml(value)},\n]".split("\n")
    rows = LineNumbers("\n".join(lines))
    for key, line in places.items():
        assert rows.line(("t", "x y", key)) == line
        assert rows.line(("t", "x y", key, 0)) == line + 1
    assert rows.line(("t", "x y", "not there", 5)) == 2


@pytest.mark.parametrize("separator", ["\n", "\r\n"])
def test_line_numbers_cover_every_key_of_the_sample(separator: str) -> None:
    rows = LineNumbers(SAMPLE.replace("\n", separator))
    numbered = dict(enumerate(SAMPLE.split("\n"), start=1))
    assert "default = {}" in numbered[rows.line(("routes", 0, "calls", "c", "default")) or 0]
    assert "query.n" in numbered[rows.line(("routes", 0, "query", "n", "type")) or 0]
    assert numbered[rows.line(("routes", 0, "answer")) or 0] == "[routes.answer]"
