"""``umbel top`` of running instances: once, as JSON, on a terminal, and without an instance."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.support.gateway.configs import write
from tests.support.process.processes import PYTHON, ended, started
from tests.support.process.supervised import supervised
from tests.support.process.terminal import on_terminal

TOP = (PYTHON, "-m", "umbel", "top")
CONFIG = '[[routes]]\npath = "/r"\nrespond = { text = "r" }\n'


async def test_the_workers_of_a_master_are_shown_once_or_as_json(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text(CONFIG)
    async with supervised(tmp_path, app=None, workers=2) as master:
        for _ in range(3):
            assert b" 200 " in await master.get("/r")
        status, shown = await ended(*TOP, cwd=tmp_path)  # Its output is no terminal.
        assert status == 0, shown
        assert shown.startswith("umbel top  ")
        assert "serving: 2 of 2 workers ready" in shown
        pids = await master.pids()
        rows = [line.split() for line in shown.splitlines() if any(str(pid) in line.split() for pid in pids.values())]
        assert [row[1] for row in rows] == ["serving", "serving"]
        assert "/r " in shown
        assert "COUNT  TASK" in shown
        status, shown = await ended(*TOP, "--json", cwd=tmp_path)
    samples = json.loads(shown)
    assert (status, set(samples)) == (0, {"workers", "lints", "routes", "upstreams", "tree"})
    assert samples["routes"]["window_s"] > 0
    assert [tree["process"] for tree in samples["tree"]["trees"]] == ["master", "worker 1", "worker 2"]


async def test_on_a_terminal_it_refreshes_until_q_and_restores_the_screen(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    async with started(PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0", cwd=tmp_path) as server:
        await server.line("Umbel runs on")
        async with on_terminal(tmp_path, "top", whole=True) as program:
            for _ in range(2):
                await program.until(r"umbel top  \d\d:\d\d:\d\d  serving: the event loop runs")
            await program.type(b"q")
            await program.until(r"\x1b\[\?25h\x1b\[\?1049l")
            assert await program.end() == 0
        async with on_terminal(tmp_path, "top", whole=True) as program:
            await program.until(r"serving: the event loop runs")
            await program.type(b"\x03")
            await program.until(r"\x1b\[\?1049l")
            assert await program.end() == 0


async def test_the_end_of_the_instance_is_said_after_the_screen_is_restored(tmp_path: Path) -> None:
    write(tmp_path, CONFIG)
    async with started(PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0", cwd=tmp_path) as server:
        await server.line("Umbel runs on")
        async with on_terminal(tmp_path, "top", whole=True) as program:
            await program.until(r"serving: the event loop runs")
            server.send(signal.SIGTERM)
            await program.until(r"\x1b\[\?1049l")
            await program.until(r"Error: no data from .*admin.sock: .*; check that the instance runs")
            assert await program.end() == 1


async def test_without_an_instance_it_says_where_it_has_looked(tmp_path: Path) -> None:
    status, said = await ended(*TOP, cwd=tmp_path)
    assert (status, said.startswith(f"Error: no instance runs with a socket in {tmp_path}/logs; name another")) == (
        1,
        True,
    )
