"""Crashes on a terminal: the traceback once, without secrets, and the path of the log."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.support.process.processes import environment
from tests.support.server.serving import connected, fetch

PROGRAM = """
import logging
from quart_trio import QuartTrio
from umbel import Umbel

app = KIND("boom", static_folder=None)
LOGGER

@app.get("/boom")
async def boom():
    raise ValueError("password=hunter2hunter2")

@app.get("/fine")
async def fine():
    return "fine"

@app.before_serving
async def start():
    START

if __name__ == "__main__":
    app.run(port=0)
"""
BARE = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        raise ValueError("password=hunter2hunter2")
    raise NotImplementedError
"""
SERVE = ("-m", "umbel", "serve", "boom:app", "-b", "127.0.0.1:0")
WAYS = {
    "umbel serve": SERVE,
    "umbel serve -w 2": (*SERVE, "-w", "2"),
    "app.run()": ("boom.py",),
}
_SAYS_WHERE = re.compile(r"Umbel runs on http://127\.0\.0\.1:(\d+)")


def write(directory: Path, kind: str = "Umbel", logger: str = "", start: str = "pass") -> None:
    text = PROGRAM.replace("KIND", kind).replace("LOGGER", logger).replace("START", start)
    (directory / "boom.py").write_text(text)


@contextmanager
def running(
    directory: Path, command: tuple[str, ...], *, stderr: int | None = None, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a process until the block ends, with its output in a file, and stderr there or elsewhere."""
    output = directory / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=directory,
            stdout=file,
            stderr=file if stderr is None else stderr,
            env={**environment(), **env},
        )
        try:
            yield process, output
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)


def said(output: Path) -> str:
    return output.read_text()


async def port_of(output: Path) -> int:
    with trio.fail_after(40):
        while (found := _SAYS_WHERE.search(said(output))) is None:
            await trio.testing.wait_all_tasks_blocked(0.02)
    return int(found[1])


async def crash(output: Path, count: int = 1) -> None:
    async with connected(await port_of(output)) as client:
        for _ in range(count):
            assert (await client.request("GET", "/boom")).status == 500


@pytest.mark.parametrize(
    ("way", "logger"),
    [*((way, "") for way in WAYS), ("umbel serve", "app.logger.name  # creates a handler")],
)
async def test_a_crash_in_a_handler_is_shown_once_without_its_secret(tmp_path: Path, way: str, logger: str) -> None:
    write(tmp_path, logger=logger)
    with running(tmp_path, WAYS[way]) as (_, output):
        await crash(output)
    text = said(output)
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("ValueError: password=[redacted]") == 1
    assert text.count(str(tmp_path / "logs" / "app.jsonl")) == 1
    assert "GET /boom" in text
    assert "hunter2" not in text


async def test_a_crash_of_another_framework_is_shown_once(tmp_path: Path) -> None:
    write(tmp_path, "QuartTrio")
    with running(tmp_path, SERVE) as (_, output):
        await crash(output)
    assert said(output).count("Traceback (most recent call last)") == 1


async def test_a_crash_of_a_bare_application_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "boom.py").write_text(BARE)
    with running(tmp_path, SERVE) as (_, output):
        assert (await fetch(await port_of(output), "GET", "/boom")).status == 500
    text = said(output)
    assert text.count("Traceback (most recent call last)") == 1
    assert str(tmp_path / "logs" / "app.jsonl") in text
    assert "hunter2" not in text


async def test_many_crashes_are_shown_in_part_and_counted(tmp_path: Path) -> None:
    write(tmp_path)
    with running(tmp_path, SERVE) as (_, output):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(crash, output, 20)
    text = said(output)
    shown = text.count("Traceback (most recent call last)")
    assert 10 <= shown <= 12
    unshown = sum(int(count) for count in re.findall(r"crashes that were not shown here: (\d+)", text))
    assert shown + unshown == 100


async def test_a_crash_at_the_start_of_two_workers_is_shown_once(tmp_path: Path) -> None:
    write(tmp_path, start="raise ValueError('password=hunter2hunter2')")
    with running(tmp_path, WAYS["umbel serve -w 2"]) as (process, output):
        with trio.fail_after(40):
            await trio.to_thread.run_sync(process.wait)
    text = said(output)
    assert text.count("Traceback (most recent call last)") == 1
    assert "hunter2" not in text


async def test_a_terminal_without_a_reader_delays_no_request(tmp_path: Path) -> None:
    write(tmp_path)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    try:
        with running(tmp_path, SERVE, stderr=writing) as (_, output), trio.fail_after(20):
            await crash(output, 12)
            assert (await fetch(await port_of(output), "GET", "/fine")).status == 200
    finally:
        os.close(writing)
        os.close(reading)


async def test_the_demo_shows_a_crash_of_its_gateway(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import umbel.gateway.routes as r\n"
        "def run(self, *arguments):\n"
        "    raise ValueError('password=hunter2hunter2')\n"
        "r.RouteView.run = run\n"
    )
    command = ("-m", "umbel", "demo", "--once")
    with running(tmp_path, command, PYTHONPATH=str(tmp_path)) as (process, output), trio.fail_after(40):
        assert await trio.to_thread.run_sync(process.wait) == 1
    text = said(output)
    assert text.count("Traceback (most recent call last)") == 1
    assert "hunter2" not in text
