"""A worker returns the memory of a burst of requests to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import trio

from tests.support.process.launched_workers import launched
from tests.support.server.serving import fetch

CROWD = 200
APP = """
import trio
from umbel import Umbel

app = Umbel("crowd", static_folder=None)
release = trio.Event()

@app.get("/held")
async def held():
    data = [bytes(700 + i) for i in range(400)]
    await release.wait()
    return str(len(data))

@app.get("/release")
async def let_go():
    release.set()
    return ""
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
async def test_the_memory_of_a_burst_of_requests_is_returned_after_it(tmp_path: Path) -> None:
    (tmp_path / "crowd.py").write_text(APP)
    with launched("umbel serve", tmp_path, app="crowd:app") as server:
        before = server.resident()
        async with trio.open_nursery() as nursery:
            for _ in range(CROWD):
                nursery.start_soon(fetch, server.port, "GET", "/held")
            with trio.fail_after(20):
                while server.resident() < before + 40_000_000:
                    await trio.testing.wait_all_tasks_blocked(0.02)
            assert (await fetch(server.port, "GET", "/release")).status == 200
        peak = server.resident()
        with trio.fail_after(20):
            while server.resident() > before + (peak - before) * 0.6:
                await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.lives
