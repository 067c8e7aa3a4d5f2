"""The README: its configuration gives the response that it shows, and its code is that of the example."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from trio.testing import MockClock

from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from umbel import Umbel
from umbel.demo.services import SERVICES
from umbel.demo.upstreams import sample_upstreams
from umbel.testing import gateway

README = (PROJECT / "README.md").read_text()


def block(language: str) -> str:
    """Return the first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_configuration_shown_gives_the_response_shown(tmp_path: Path) -> None:
    text = block("toml")
    assert text.count("\n") <= 12
    async with sample_upstreams() as urls:
        for name, service in SERVICES.items():
            text = text.replace(f"http://127.0.0.1:{service.ports[0]}", urls[name][0])
        (tmp_path / "umbel.toml").write_text(text)
        async with serving(Umbel.from_file(tmp_path / "umbel.toml")) as port, httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}/dashboard/42")

    shown = json.loads(block("console").strip().splitlines()[-1])
    assert response.json() == shown
    assert response.headers["umbel-completed"] == "true"


async def test_the_test_shown_passes(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = re.findall(r"```python\n(from umbel.testing.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(shown, names)
    monkeypatch.chdir(PROJECT)
    await names["test_the_dashboard_needs_only_the_users"](gateway)


def test_the_code_shown_is_that_of_the_example() -> None:
    assert block("python") in (PROJECT / "examples" / "app.py").read_text()
