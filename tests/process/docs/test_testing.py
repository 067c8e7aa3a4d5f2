"""docs/testing.md: its tests pass, and it describes each public name and option of ``umbel.testing``."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.process.processes import PROJECT, PYTHON, ended
from tests.support.testing.plug_in import PLUG_IN
from umbel import testing
from umbel.testing.cassettes.exchange import VERSION, Exchange, Header, Part, encode

DOC = (PROJECT / "docs" / "testing.md").read_text()

JSON = (("content-type", "application/json"),)
CASSETTE = (
    Header(VERSION, bodies=True),
    *(
        Exchange(name, 0, "GET", target, 200, at, JSON, (Part.of(at, body, bodies=True),), ended_at=at)
        for name, target, at, body in (
            ("users", "/users/42", 0.052, b'{"name":"Ada"}'),
            ("orders", "/orders?user_id=42", 0.021, b"[1,2,3]"),
        )
    ),
)


async def test_the_tests_shown_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    (config,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    (tmp_path / "umbel.toml").write_text(config)
    (tmp_path / "dashboard.jsonl").write_bytes(b"".join(map(encode, CASSETTE)))
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    status, said = await ended(PYTHON, "-m", "pytest", "-q", "-W", "error", "-p", "no:trio", *PLUG_IN, cwd=tmp_path)
    assert status == 0, said
    assert f"{DOC.count('def test_')} passed" in said


async def test_the_trace_shown_is_that_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    (block,) = re.findall(r"```python\n([^`]*async def test_a_retry_and_a_hedge.*?)```", DOC, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", DOC, re.DOTALL)
    (config,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    (tmp_path / "umbel.toml").write_text(config)
    monkeypatch.chdir(tmp_path)
    clients: list[testing.GatewayClient] = []

    @asynccontextmanager
    async def kept(*args: Any) -> AsyncIterator[testing.GatewayClient]:
        async with testing.gateway(*args) as client:
            clients.append(client)
            yield client

    names: dict[str, Any] = {}
    exec(block, names)
    await names["test_a_retry_and_a_hedge"](kept)
    assert f"{clients[0].trace()}\n" == shown


def test_the_first_test_has_five_lines() -> None:
    block = re.search(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert block is not None
    assert len([line for line in block[1].splitlines() if line]) <= 5


def test_each_option_and_each_scripted_answer_is_described() -> None:
    options = re.findall(r"^\| `(\w+)` \| `", DOC, re.MULTILINE)
    assert options == list(inspect.signature(testing.gateway).parameters)[2:]
    table = DOC.partition("## What an upstream answers")[2].partition("```")[0]
    homes = {name for name in testing.__all__ if name.islower() and name not in ("gateway", "cassette")}
    assert {name for name in homes if f"`{name}(" not in table} == set()
