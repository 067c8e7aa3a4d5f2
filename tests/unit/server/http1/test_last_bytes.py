"""The end of a response that is sent at the end of the turn, to clients that do not read. On the autojump clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.server.http1 import DRIVERS, GET, App, Server, answer, served
from tests.support.server.serving import RawClient
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
SIZE = 50_000
"""Bytes of a body: a few responses fill the buffers of a socket, and none is sent in pieces."""


async def sized(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x" * SIZE, 200, (b"content-length", b"%d" % SIZE))


async def fill(server: Server, client: RawClient) -> int:
    """Send requests one by one, and read nothing, until a response is stuck. Return the number of requests."""
    for number in range(1, 100):
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        connection: Any = next(iter(server.state.open))
        if connection.stream.unsent:
            return number
    raise AssertionError("the socket has taken every response")


@DRIVERS
async def test_a_client_that_reads_late_gets_every_response_whole(driver: str, autojump_clock: MockClock) -> None:
    async with served(App(sized), driver) as server, server.connected() as client:
        for _ in range(await fill(server, client)):
            reply = await client.reply()
            assert (reply.status, len(reply.body)) == (200, SIZE)
        assert len((await client.request("GET", "/x")).body) == SIZE


@DRIVERS
async def test_a_client_that_never_reads_is_ended_at_the_write_timeout(driver: str, autojump_clock: MockClock) -> None:
    limits = Limits(write_timeout=2)
    async with served(App(sized), driver, limits, keep_alive_timeout=300.0) as server, server.connected() as client:
        await fill(server, client)
        began = trio.current_time()
        with trio.fail_after(200):
            await server.state.connections.wait_value(0)
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)


@DRIVERS
async def test_an_idle_client_is_ended_at_its_timeout_after_it_has_read(driver: str, autojump_clock: MockClock) -> None:
    async with served(App(sized), driver, keep_alive_timeout=9.0) as server, server.connected() as client:
        for _ in range(await fill(server, client)):
            await client.reply()
        began = trio.current_time()
        with trio.fail_after(200):
            await server.state.connections.wait_value(0)
        assert trio.current_time() - began == pytest.approx(9, abs=0.1)
