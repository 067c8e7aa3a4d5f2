"""``umbel lab --serve`` as a process: real runs for a client, and its end by a signal."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.support.process.processes import PYTHON, started
from umbel.labs.model import lab_of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_lab_is_run_for_a_client_until_a_signal_comes(number: int, tmp_path: Path) -> None:
    async with started(PYTHON, "-m", "umbel", "lab", "--serve", cwd=tmp_path) as server:
        address = await server.address()
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as client:
            assert "<h1>Labs</h1>" in (await client.get("/")).text
            columns = (await client.post("/1/run")).json()
        assert {column["key"]: column["figure"] for column in columns} == lab_of(1).expected
        assert await server.stop(number) == 0
    assert "Traceback" not in server.output
