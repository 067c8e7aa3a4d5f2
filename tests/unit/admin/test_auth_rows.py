"""The sections of [auth] in the content of /status: one row for all workers, on the page and in a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.cli.instance.test_ctl import answering, ok
from umbel.admin.auth_rows import auth_rows
from umbel.admin.page import status_page
from umbel.cli import main

ISSUER = "https://id.example/"


def users(state: str = "ok", **keys: Any) -> dict[str, Any]:
    source = {"issuer": ISSUER, "source": "upstream id /keys", "state": state, "keys": 2, "age": 65.0, "last_error": ""}
    return {"name": "users", "kind": "jwt", "state": state, "cached_tokens": 3, "sources": [source | keys]}


MACHINES = {"name": "machines", "kind": "mtls", "state": "ok", "cached_tokens": 0, "sources": []}


def status(*workers: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The content of ``/status`` of a master; a worker that is None did not answer."""
    shown = [{} if auth is None else {"stats": {"server": {}, "app": {"auth": auth}}} for auth in workers]
    beat = {"state": "ready", "pid": 7, "generation": 1, "uptime": 1.0, "beat": None, "beat_age": None}
    slot = {"slot": 1, "state": "serving", "restarts": 0, "last_exit": None}
    master = {"pid": 1, "uptime_s": 1.0, "state": "serving", "summary": "well", "generation": 1, "addresses": ["a"]}
    return {"master": master, "slots": [{**slot, "workers": [beat | each for each in shown]}]}


def test_a_row_has_the_worst_state_and_fewest_keys_of_all_workers() -> None:
    failing = users("failing", keys=1, age=900.0, last_error="the upstream id answered 500")

    row, machines = auth_rows(status([users(), MACHINES], None, [failing, MACHINES], [users(), MACHINES]))

    assert (row.name, row.source, row.state, row.keys, row.age) == ("users", ISSUER, "failing", 1, 900.0)
    assert (row.cached_tokens, row.last_error) == (9, "the upstream id answered 500")
    assert (machines.kind, machines.source, machines.state, machines.age) == ("mtls", "", "ok", None)


@pytest.mark.parametrize(
    "shown", [{"process": {}}, {"process": {}, "app": {}}, {"slots": []}, status(None), status([])], ids=range(5)
)
def test_without_sections_of_auth_or_an_answer_there_are_no_rows(shown: dict[str, Any]) -> None:
    assert auth_rows(shown) == []
    assert b"Authentication" not in status_page(shown)


def test_the_page_shows_the_rows_escaped() -> None:
    page = status_page(status([users("none", keys=0, age=None, last_error="<b>refused</b>")])).decode()

    assert "<h2>Authentication</h2>" in page
    assert "<td>none</td><td>0</td><td></td><td>3</td><td>&lt;b&gt;refused&lt;/b&gt;</td>" in page


@pytest.mark.parametrize(
    "shown",
    [
        status([users("failing", last_error="timeout"), MACHINES]),
        {
            "process": {"pid": 7, "uptime_s": 65.0, "state": "serving", "summary": "well", "blocked": None},
            "app": {"auth": [users("failing", last_error="timeout"), MACHINES]},
        },
    ],
    ids=["master", "process"],
)
def test_ctl_status_prints_the_rows_below_the_processes(shown: dict[str, Any], tmp_path: Path) -> None:
    with answering(tmp_path / "admin.sock", ok(json.dumps(shown).encode())):
        result = CliRunner().invoke(main, ["ctl", "status", "--socket", str(tmp_path / "admin.sock")])

    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()[-3:]] == [
        ["AUTH", "KIND", "SOURCE", "STATE", "KEYS", "AGE", "TOKENS", "LAST", "ERROR"],
        ["users", "jwt", ISSUER, "failing", "2", "1m", "5s", "3", "timeout"],
        ["machines", "mtls", "ok"],
    ]
