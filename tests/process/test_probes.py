"""Probes of a worker at its limits of requests and connections, for each way to start it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import write
from tests.support.gateway.program import route, up
from tests.support.process.launched_workers import LAUNCHERS, launched
from tests.support.process.supervised import supervised
from tests.support.server.serving import connected, fetch
from tests.support.upstream.raw_server import raw_server, silent

CAPS = "[server]\nmax_in_flight = 3\nmax_connections = 4\n"
TEST_TIMEOUT_S = 20.0


async def assert_probes_are_answered(port: int) -> None:
    """Occupy ``max_in_flight`` and ``max_connections``, then send probes."""
    async with AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(connected(port))
            await client.send("GET", "/r")
        # A connection counts after its response: one that was only opened may not be accepted yet.
        client = await stack.enter_async_context(connected(port))
        assert (await client.request("GET", "/livez")).status == 200
        with trio.fail_after(TEST_TIMEOUT_S):
            while (await fetch(port, "GET", "/nowhere")).status != 503:
                await wait_all_tasks_blocked(0.002)
            for path in ("/livez", "/readyz"):
                assert (await fetch(port, "GET", path)).status == 200


@pytest.mark.parametrize("launcher", LAUNCHERS)
async def test_probes_of_a_full_process_are_answered(launcher: str, tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        config = CAPS + up(upstream) + route(keys='deadline = "1h"')
        with launched(launcher, tmp_path, config, settings="graceful_timeout = 1\n") as server:
            await assert_probes_are_answered(server.port)


async def test_probes_of_a_full_worker_are_answered(tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        write(tmp_path, CAPS + up(upstream) + route(keys='deadline = "1h"'))
        async with supervised(tmp_path, workers=1, app=None) as master:
            await assert_probes_are_answered(master.port)
