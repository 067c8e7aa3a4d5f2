"""A configuration as rows: places, units, hidden secrets, and what differs between two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from umbel.config.display import rows as module
from umbel.config.display.rows import as_answer, changes_of
from umbel.config.loading.load import load
from umbel.config.schema.reference.written_values import FORMATS, unit_of
from umbel.config.schema.section_tree import all_sections
from umbel.config.schema.sections import Config
from umbel.core.diagnostics.redact import REDACTED

FILE = """
[upstreams.users]
urls = ["${BASE}"]
headers = { authorization = "Bearer planted-secret-1", x-tenant = "${TENANT}", x-note = "Bearer planted-secret-2" }
timeout = "1500ms"

[auth.partners]
kind = "api-key"
header = "x-partner-word"
file = "keys.txt"

[admin]
bind = "127.0.0.1:0"
token = "planted-secret-3-planted"

[[routes]]
path = "/a"
deadline = "2s"

[routes.calls.user]
upstream = "users"
path = "/x"
headers = { x-partner-word = "planted-secret-4" }
optional = true
default = { name = "nobody", password = "planted-secret-5" }
"""
ENVIRON = {"BASE": "http://planted-variable.example", "TENANT": "planted-secret-6"}


def loaded(directory: Path, text: str = FILE, **environ: str) -> Config:
    path = directory / "umbel.toml"
    path.write_text(text)
    return load(path, environ=ENVIRON | environ)


def values(config: Config) -> dict[str, str]:
    return {row["key"]: row["value"] for row in as_answer(config)["rows"]}


def test_each_key_has_its_place_and_numbers_their_unit(tmp_path: Path) -> None:
    rows = {row["key"]: row for row in as_answer(loaded(tmp_path))["rows"]}
    assert rows["upstreams.users.timeout"] == {
        "key": "upstreams.users.timeout",
        "value": "1500ms",
        "at": f"{tmp_path}/umbel.toml:5",
    }
    assert rows['routes."/a".calls.user.path']["value"] == '"/x"'
    assert rows['routes."/a".calls.user.path']["at"].endswith(":22")
    assert not [key for key in rows if "max_body" in key]  # A default of the schema.


def test_no_secret_is_in_the_rows(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert "planted" not in json.dumps(as_answer(config)).replace(str(tmp_path), "")
    shown = values(config)
    assert shown["upstreams.users.urls"] == '["${BASE}"]'
    assert shown["upstreams.users.headers.x-tenant"] == '"${TENANT}"'
    assert shown["upstreams.users.headers.authorization"] == REDACTED
    assert shown["upstreams.users.headers.x-note"] == f'"Bearer {REDACTED}"'
    # The name of a credential that the routes accept.
    assert shown['routes."/a".calls.user.headers.x-partner-word'] == REDACTED
    assert shown["admin.token"] == REDACTED
    assert shown['routes."/a".calls.user.default.password'] == REDACTED
    assert shown['routes."/a".calls.user.default.name'] == '"nobody"'


def test_names_that_an_operator_has_chosen_hide_nothing_below_them(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILE.replace("users", "token-service"))
    assert values(config)["upstreams.token-service.timeout"] == "1500ms"


def changes(directory: Path, old: str, new: str, **environ: str) -> dict[str, Any]:
    before = loaded(directory)
    assert old in FILE or not old
    return changes_of(before, loaded(directory, FILE.replace(old, new) if old else FILE + new, **environ))


def test_equal_configurations_do_not_differ(tmp_path: Path) -> None:
    assert changes(tmp_path, "", "") == {"changed": [], "added": [], "removed": [], "left_out": 0}


def test_keys_that_were_changed_added_or_removed_are_named_with_their_values(tmp_path: Path) -> None:
    found = changes(tmp_path, 'deadline = "2s"', 'deadline = "3s"')
    key, at = 'routes."/a".deadline', f"{tmp_path}/umbel.toml:18"
    assert found["changed"] == [{"key": key, "at": at, "before": "2s", "after": "3s"}]
    found = changes(tmp_path, 'deadline = "2s"', "compress = false")
    assert [(each["key"], each["after"]) for each in found["added"]] == [('routes."/a".compress', "false")]
    assert [(each["key"], each["before"]) for each in found["removed"]] == [('routes."/a".deadline', "2s")]


def test_a_secret_that_has_changed_is_named_and_not_shown(tmp_path: Path) -> None:
    found = changes(tmp_path, "planted-secret-3-planted", "planted-secret-9-planted", TENANT="planted-other")
    assert {each["key"]: (each["before"], each["after"]) for each in found["changed"]} == {
        "admin.token": (REDACTED, REDACTED),
        "upstreams.users.headers.x-tenant": ('"${TENANT}"', '"${TENANT}"'),
    }


def test_a_route_that_is_put_before_others_is_the_only_difference(tmp_path: Path) -> None:
    before = '[[routes]]\npath = "/a"'
    found = changes(tmp_path, before, f'[[routes]]\npath = "/first"\nrespond = {{ status = 204 }}\n\n{before}')
    assert [each["key"] for each in found["added"]] == ['routes."/first".path', 'routes."/first".respond.status']
    assert (found["changed"], found["removed"]) == ([], [])


def test_routes_with_one_path_are_told_apart() -> None:
    respond = {"respond": {"status": 204}}
    routes = [
        {"path": "/a", "methods": ["GET"], **respond},
        {"path": "/a", "methods": ["POST"], **respond},
        {"path": "/a", "methods": ["GET"], "match": "headers.x", **respond},
    ]
    names = [key.removesuffix(".path") for key in values(Config.model_validate({"routes": routes})) if "path" in key]
    assert names == ['routes."GET /a"', 'routes."POST /a"', 'routes."GET /a" #2']


def test_rows_values_and_changes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUE_CHARS_MAX", 10)
    monkeypatch.setattr(module, "CHANGES_MAX", 1)
    found = changes(tmp_path, 'deadline = "2s"', f'match = "headers.{"x" * 50}"')
    assert (len(found["added"]), len(found["removed"]), found["left_out"]) == (1, 0, 1)
    assert found["added"][0]["after"] == '"headers.x…'
    monkeypatch.setattr(module, "ROWS_MAX", 3)
    answer = as_answer(loaded(tmp_path))
    assert len(answer["rows"]) == 3
    assert answer["left_out"] > 5


def test_a_number_of_a_key_with_several_types_or_without_a_unit_is_shown(tmp_path: Path) -> None:
    text = """
[traces]
otlp = "http://127.0.0.1:4318"
sample = 0.05

[limits.clients]
key = "client.ip"
burst = 5
rate = "100/m"

[upstreams.slow]
urls = ["http://127.0.0.1:1"]
hedge = { after = "60ms" }

[upstreams.usual]
urls = ["http://127.0.0.1:1"]
hedge = { after = "p95" }
"""
    shown = {row["key"]: row["value"] for row in as_answer(loaded(tmp_path, text))["rows"]}
    assert shown["upstreams.slow.hedge.after"] == "60ms"
    assert shown["upstreams.usual.hedge.after"] == '"p95"'
    assert shown["traces.sample"] == "0.05"
    assert "limits.clients.rate" in shown


def test_each_key_has_a_unit_that_can_be_shown_or_none() -> None:
    units = {unit_of(place.model, name) for place in all_sections() for name in place.model.model_fields}
    assert {"", "duration", "size"} < units
    assert units <= {"", *FORMATS}
