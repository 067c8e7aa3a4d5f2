"""Any ASGI application under ``umbel serve``: a crash is one record, and the console shows no secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process.launched_workers import launched
from tests.support.process.processes import environment
from tests.support.server.serving import connected, fetch

SECRET = "hunter2hunter2"
STARTS = f"""
import trio, logging

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        FAILS
        raise NotImplementedError("no lifespan")
    if scope["path"] == "/hello":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"hello"}})
        return
    password = "{SECRET}"
    raise RAISED(f"no login with password={{password}}")
"""
WORKERS = pytest.mark.parametrize("workers", [(), ("-w", "1")], ids=["alone", "under a master"])


def program(directory: Path, raised: str = "ValueError", fails: str = "pass") -> None:
    (directory / "foreign.py").write_text(STARTS.replace("RAISED", raised).replace("FAILS", fails))


def records_of(directory: Path, event: str) -> list[dict[str, Any]]:
    path = directory / "logs" / "app.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for record in map(json.loads, lines) if record["event"] == event]


@pytest.mark.parametrize("raised", ["ValueError", "KeyboardInterrupt", "SystemExit"])
async def test_a_crash_is_one_record_without_its_secret(tmp_path: Path, raised: str) -> None:
    program(tmp_path, raised)
    with launched("umbel serve", tmp_path, app="foreign:app") as server:
        assert (await fetch(server.port, "GET", "/login")).status == 500
        async with connected(server.port) as client:
            assert (await client.request("GET", "/hello")).status == 200
    (record,) = records_of(tmp_path, "request.crashed")
    assert record["exception.type"].endswith(raised)
    assert record["level"] == "error"
    assert "password=[redacted]" in record["exception.message"]
    for path in (tmp_path / "output", tmp_path / "logs" / "app.jsonl"):
        assert SECRET not in path.read_text()


@pytest.mark.parametrize("kind", ["from umbel import Umbel as App", "from quart_trio import QuartTrio as App"])
async def test_a_crash_that_a_framework_prints_is_printed_without_its_secret(tmp_path: Path, kind: str) -> None:
    (tmp_path / "foreign.py").write_text(
        f"{kind}\napp = App('foreign')\napp.logger.name\n\n@app.get('/login')\nasync def login():\n"
        f"    raise ValueError('password={SECRET}')\n"
    )
    with launched("umbel serve", tmp_path, app="foreign:app") as server:
        assert (await fetch(server.port, "GET", "/login")).status == 500
    records = [json.loads(line) for line in (tmp_path / "logs" / "app.jsonl").read_text().splitlines()]
    assert [record["exception.type"] for record in records if "exception.type" in record] == ["builtins.ValueError"]
    assert "ValueError: password=[redacted]" in (tmp_path / "output").read_text()
    for path in (tmp_path / "output", tmp_path / "logs" / "app.jsonl"):
        assert SECRET not in path.read_text()


async def test_records_go_where_the_configuration_says(tmp_path: Path) -> None:
    program(tmp_path)
    with launched("umbel serve", tmp_path, '[logs]\ndir = "records"\n', app="foreign:app") as server:
        assert (await fetch(server.port, "GET", "/login")).status == 500
        assert (await fetch(server.port, "GET", "/..")).status in (400, 500)
    assert "request.crashed" in (tmp_path / "records" / "app.jsonl").read_text()


def ends(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    (directory / "hypercorn.toml").write_text('bind = ["127.0.0.1:0"]\nworker_class = "trio"\n')
    command = [sys.executable, "-m", "umbel", "serve", "foreign:app", *arguments]
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@WORKERS
@pytest.mark.parametrize(
    "fails",
    [
        f'await send({{"type": "lifespan.startup.failed", "message": "password={SECRET}"}})',
        f'await receive(); raise BaseExceptionGroup("two", [KeyError("password={SECRET}"), KeyboardInterrupt()])',
    ],
)
def test_a_start_that_fails_is_reported_without_secrets(tmp_path: Path, workers: tuple[str, ...], fails: str) -> None:
    program(tmp_path, fails=fails)
    ended = ends(tmp_path, *workers)
    assert ended.returncode != 0
    assert SECRET.encode() not in ended.stdout + ended.stderr
    assert b"Lifespan failure in startup" in ended.stderr


@WORKERS
def test_a_startup_hook_of_umbel_that_fails_is_reported_without_secrets(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "foreign.py").write_text(
        "from umbel import Umbel\napp = Umbel('foreign')\n\n@app.before_serving\nasync def begin():\n"
        f"    raise ValueError('password={SECRET}')\n"
    )
    ended = ends(tmp_path, *workers)
    assert ended.returncode != 0
    assert b"password=[redacted]" in ended.stderr
    assert SECRET.encode() not in ended.stdout + ended.stderr


@WORKERS
def test_an_import_that_fails_is_reported_without_secrets(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "foreign.py").write_text(f'token = "{SECRET}"\nraise ValueError(f"token={{token}}")\n')
    ended = ends(tmp_path, *workers)
    assert ended.returncode != 0
    assert b"ValueError" in ended.stderr
    assert b"foreign.py" in ended.stderr
    assert SECRET.encode() not in ended.stdout + ended.stderr
