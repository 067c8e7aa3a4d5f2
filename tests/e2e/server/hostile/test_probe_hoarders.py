"""Clients that fill the reserve for probes: a further probe still gets its response."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.e2e.server.test_probes import TEST_TIMEOUT_S, busy
from tests.support.gateway.program import SERVERS
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, fetch
from umbel.server.limits.probe_reserve import RESERVED_CONNECTIONS, RESERVED_REQUESTS


@SERVERS
async def test_connections_of_answered_probes_do_not_keep_the_reserve(stock: bool, tmp_path: Path) -> None:
    async with busy(tmp_path, stock=stock, keys="max_connections = 2") as program, AsyncExitStack() as stack:
        for _ in range(RESERVED_CONNECTIONS):
            client = await stack.enter_async_context(connected(program.port))
            # Bytes behind the probe make the server linger, so the connection stays open.
            await client.stream.send_all(b"GET /livez HTTP/1.1\r\nhost: gateway.test\r\n\r\nG")
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 200")
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (await fetch(program.port, "GET", "/livez")).status == 200


@pytest.mark.parametrize("window", [None, 0], ids=["read", "unread"])
async def test_connections_of_answered_http2_probes_do_not_keep_the_reserve(window: int | None, tmp_path: Path) -> None:
    async with busy(tmp_path, stock=False, keys="max_connections = 2") as program, AsyncExitStack() as stack:
        for _ in range(RESERVED_CONNECTIONS):
            client = await stack.enter_async_context(h2_client(program.port, window=window))
            stream = await client.request("GET", "/livez")
            while not client.answers[stream].status:
                assert await client.receive()
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (await fetch(program.port, "GET", "/livez")).status == 200


async def test_probes_with_unread_responses_do_not_keep_the_reserve(tmp_path: Path) -> None:
    async with busy(tmp_path, stock=False) as program, h2_client(program.port, window=0) as client:
        for _ in range(RESERVED_REQUESTS):
            stream = await client.request("GET", "/livez")
            while not client.answers[stream].status:
                assert await client.receive()
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (await fetch(program.port, "GET", "/livez")).status == 200
