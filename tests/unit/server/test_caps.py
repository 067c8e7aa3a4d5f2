"""How many may come at once: connections, requests, memory; and the statistics that tell."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from tests.support.http1 import DRIVERS, GET, POST, App, answer, hello, served
from umbel.kinds import Kind
from umbel.server import memory
from umbel.server.limits import Limits
from umbel.server.phase import Phase

MockClock = trio.testing.MockClock


@pytest.fixture
async def gate() -> AsyncIterator[trio.Event]:
    yield trio.Event()


def held(gate: trio.Event) -> App:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await answer(send)

    return App(waits)


@DRIVERS
async def test_one_connection_too_many_gets_503_at_once(driver: str, autojump_clock: MockClock) -> None:
    app = App(hello)
    async with served(app, driver, Limits(max_connections=2)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connected()) for _ in range(2)]
        for client in clients:
            assert (await client.request("GET", "/")).status == 200
        async with server.connected() as third:
            reply = await third.request("GET", "/")
            assert (reply.status, reply["retry-after"], reply["connection"]) == (503, "1", "close")
            assert await third.closed_by_server()
        assert trio.current_time() == 0
        assert (await clients[0].request("GET", "/")).status == 200
    (record,) = app.recorder.requests
    assert (record.status, record.kind) == (503, Kind.OVERLOADED)
    assert server.service.statistics().connections_total == 2


async def test_of_too_many_connections_most_are_closed_without_a_word(autojump_clock: MockClock) -> None:
    app = App(hello)
    async with served(app, limits=Limits(max_connections=1)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connected()) for _ in range(100)]
        heard = [await client.stream.receive_some() for client in clients[1:]]
    assert sum(answer.startswith(b"HTTP/1.1 503") for answer in heard) == 64
    assert sum(answer == b"" for answer in heard) == 99 - 64
    assert len(app.recorder.requests) == 64


def test_connections_never_take_more_than_half_of_the_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert Limits(max_connections=10**9).connections_allowed == soft // 2
    assert Limits(max_connections=10).connections_allowed == 10


@DRIVERS
async def test_one_request_too_many_gets_503_and_keeps_its_connection(
    driver: str, gate: trio.Event, autojump_clock: MockClock
) -> None:
    app = held(gate)
    async with served(app, driver, Limits(max_in_flight=2)) as server, AsyncExitStack() as stack:
        working = [await stack.enter_async_context(server.connected()) for _ in range(2)]
        for client in working:
            await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as third:
            for _ in range(3):
                reply = await third.request("GET", "/")
                assert (reply.status, reply["retry-after"]) == (503, "1")
            assert trio.current_time() == 0
            gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert (await third.request("GET", "/")).status == 200
        for client in working:
            assert (await client.reply()).status == 200
    assert [record.status for record in app.recorder.requests] == [503] * 3
    statistics = server.service.statistics()
    assert (statistics.requests_total, statistics.requests_in_flight, statistics.refused) == (3, 0, {503: 3})
    assert statistics.phase is Phase.SERVING


async def test_a_refused_request_with_a_body_ends_its_connection(gate: trio.Event, autojump_clock: MockClock) -> None:
    limits = Limits(max_in_flight=1)
    async with served(held(gate), limits=limits) as server, server.connected() as first, server.connected() as second:
        await first.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await second.stream.send_all(POST + b"content-length: 1000\r\n\r\n")
        reply = await second.reply("POST")
        assert (reply.status, reply["connection"]) == (503, "close")
        assert await second.closed_by_server()
        gate.set()
        assert (await first.reply()).status == 200


async def test_near_the_memory_limit_connections_are_not_kept_and_then_requests_not_taken(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    resident = 50
    monkeypatch.setattr(memory, "resident", lambda: resident)
    async with served(App(hello), limits=Limits(memory_limit=100)) as server:
        async with server.connected() as client:
            assert "connection" not in dict((await client.request("GET", "/")).headers)
            resident = 90
            # It looks four times a second at most.
            await client.request("GET", "/")
            await trio.sleep(0.25)
            reply = await client.request("GET", "/")
            assert (reply.status, reply["connection"]) == (200, "close")
        await trio.sleep(0.25)
        resident = 96
        async with server.connected() as client:
            reply = await client.request("GET", "/")
            assert (reply.status, reply["connection"]) == (503, "close")
            assert "memory" in reply.json["detail"]
        await trio.sleep(0.25)
        resident = 50
        async with server.connected() as client:
            assert "connection" not in dict((await client.request("GET", "/")).headers)


def test_resident_memory_is_what_the_system_says() -> None:
    assert 2**20 < memory.resident() < 2**36
