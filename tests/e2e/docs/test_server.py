"""docs/server.md: its code runs, and its tables name existing keys and tests."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

import httpx
import pytest
import trio

from tests.support.process.processes import PROJECT, PYTHON, started
from tests.support.source.wait_tables import check_waits
from umbel import Umbel
from umbel.config.schema.sections import Call, Limit, Route
from umbel.server.limits.server_limits import Limits

DOC = (PROJECT / "docs" / "server.md").read_text()
FIVE_LINES, WITH_LIMITS, UNDER_HYPERCORN = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
TABLES = DOC.partition("## Attack → bound → key")[2].partition("## Every wait")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLES.splitlines()
    if line.startswith("| ") and not line.startswith("| attack")
]


async def test_the_five_lines_of_code_are_five_and_serve_a_request(tmp_path: Any) -> None:
    application = FIVE_LINES.partition("trio.run(")[0].splitlines()
    assert len([line for line in application if line]) == 5
    # A Unix socket instead of a fixed port, and a line that tells when the program has started.
    listening = FIVE_LINES.replace("127.0.0.1:8000", "unix:served").replace(
        "trio.run(", "print('runs', flush=True); trio.run("
    )
    async with started(PYTHON, "-c", listening, cwd=tmp_path) as server:
        await server.line("runs")
        with trio.fail_after(10):
            while not (tmp_path / "served").exists():
                await trio.testing.wait_all_tasks_blocked(0.005)
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "served"))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("http://gateway.test/")).text == "hi\n"


async def test_limits_can_be_given_as_shown() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    names: dict[str, Any] = {"app": app}
    exec(compile(WITH_LIMITS, "docs/server.md", "exec"), names)
    assert inspect.iscoroutine(names["serving"])
    names["serving"].close()
    assert names["limits"].max_in_flight == 64


def test_an_application_under_hypercorn_can_be_made_as_shown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "umbel.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(UNDER_HYPERCORN, "docs/server.md", "exec"), names)
    assert isinstance(names["app"], Umbel)


def test_every_attack_has_a_limit_a_key_and_an_existing_test() -> None:
    assert len(ROWS) > 25
    elsewhere = {
        "keep_alive_timeout",
        "graceful_timeout",
        "bind",
        "pid_path",
        "control",
        "hang_timeout",
        "trusted_proxies",
        "--allow-empty",
        "backlog",
    }
    keys = {field.name for field in fields(Limits)} | elsewhere
    for attack, bound, key, tested in ROWS:
        assert attack
        assert bound
        named = re.findall(r"`([\w-]+)`", key)
        assert named or key == "fixed", attack
        known = {"of a call": set(Call.model_fields), "of a route": set(Route.model_fields)}
        known["of a limit"] = set(Limit.model_fields)
        assert set(named) <= known.get(key.rpartition("` ")[2], keys), attack
        for path in re.findall(r"`([^`]+)`", tested):
            assert (PROJECT / "tests" / path).exists(), path


def test_every_wait_has_a_timeout_and_an_existing_test() -> None:
    check_waits(DOC.partition("## Every wait for a client")[2].partition("\n## ")[0], 19)


def test_the_table_of_limits_lists_every_limit() -> None:
    table = DOC.partition("## The limits")[2].partition("## How")[0]
    told = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|")))
    assert sorted(told) == sorted(field.name for field in fields(Limits))
