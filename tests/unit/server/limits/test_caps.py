"""Limits on numbers: connections, requests in flight, memory, the reserve for probes, and the statistics."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio

from tests.support.server.http1 import DRIVERS, GET, POST, App, answer, hello, served
from umbel.core.failure_kinds import Kind
from umbel.server.limits import memory
from umbel.server.limits.probe_reserve import RESERVED_CONNECTIONS, RESERVED_HEAD_S, RESERVED_REQUESTS, RESERVED_S
from umbel.server.limits.server_limits import Limits
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
async def test_a_connection_over_max_connections_gets_503_at_once(driver: str, autojump_clock: MockClock) -> None:
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
    assert server.state.statistics().connections_total == 2


async def test_silent_reserved_connections_are_displaced_oldest_first(autojump_clock: MockClock) -> None:
    app = App(hello)
    async with served(app, limits=Limits(max_connections=1)) as server, AsyncExitStack() as stack:
        clients = []
        for _ in range(1 + RESERVED_CONNECTIONS + 36):
            clients.append(await stack.enter_async_context(server.connected()))
            await trio.testing.wait_all_tasks_blocked()
        heard = [await client.stream.receive_some() for client in clients[1:]]
        assert RESERVED_HEAD_S <= trio.current_time() < RESERVED_S
    assert [bool(answer) for answer in heard] == [False] * 36 + [True] * RESERVED_CONNECTIONS
    assert all(answer.startswith(b"HTTP/1.1 503") for answer in heard[36:])
    assert len(app.recorder.requests) == RESERVED_CONNECTIONS


@DRIVERS
async def test_a_probe_is_answered_while_silent_connections_fill_the_reserve(
    driver: str, autojump_clock: MockClock
) -> None:
    app = App(hello)
    async with served(app, driver, Limits(max_connections=1)) as server, AsyncExitStack() as stack:
        for _ in range(1 + 2 * RESERVED_CONNECTIONS):
            await stack.enter_async_context(server.connected())
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as client:
            reply = await client.request("GET", "/livez")
            assert (reply.status, reply["connection"]) == (200, "close")
            assert await client.closed_by_server()
        assert trio.current_time() == 0


async def test_a_slow_head_on_a_reserved_connection_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    async with served(App(hello), limits=Limits(max_connections=1)) as server, server.connected():
        await server.state.connections.wait_value(1)
        async with server.connected() as client, trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await client.stream.send_all(b"G")
                    await trio.sleep(0.3)

            nursery.start_soon(drip)
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 503")
            assert trio.current_time() < RESERVED_HEAD_S + 0.5
            nursery.cancel_scope.cancel(reason="refused")


@DRIVERS
async def test_probes_beyond_max_in_flight_are_bounded(
    driver: str, autojump_clock: MockClock, gate: trio.Event
) -> None:
    app = held(gate)
    async with served(app, driver, Limits(max_in_flight=1)) as server, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(server.connected()) for _ in range(1 + RESERVED_REQUESTS)]
        for client, target in zip(busy, ["/", *["/livez?full"] * RESERVED_REQUESTS], strict=True):
            await client.send("GET", target)
            await trio.testing.wait_all_tasks_blocked()
        assert server.state.in_flight == 1 + RESERVED_REQUESTS
        async with server.connected() as client:
            assert (await client.request("GET", "/livez")).status == 503
            assert (await client.request("GET", "/readyz")).status == 503
            assert (await client.request("GET", "/livezz")).status == 503
        gate.set()
        assert [(await client.reply()).status for client in busy] == [200] * len(busy)
    assert server.state.in_flight == 0


@DRIVERS
async def test_a_probe_with_a_body_or_another_method_gets_no_reserve(
    driver: str, autojump_clock: MockClock, gate: trio.Event
) -> None:
    async with served(held(gate), driver, Limits(max_in_flight=1)) as server, server.connected() as busy:
        await busy.send("GET", "/")
        await trio.testing.wait_all_tasks_blocked()
        for method, body in [("POST", b""), ("GET", b"x"), ("DELETE", b"")]:
            async with server.connected() as client:
                assert (await client.request(method, "/livez", [], body)).status == 503
        gate.set()


def test_connections_never_take_more_than_half_of_the_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert Limits(max_connections=10**9).connections_allowed == soft // 2
    assert Limits(max_connections=10).connections_allowed == 10


@DRIVERS
async def test_a_request_over_max_in_flight_gets_503_and_keeps_its_connection(
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
    statistics = server.state.statistics()
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


async def test_near_memory_limit_keep_alive_ends_and_then_requests_get_503(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    resident = 50
    monkeypatch.setattr(memory, "resident", lambda: resident)
    async with served(App(hello), limits=Limits(memory_limit=100)) as server:
        async with server.connected() as client:
            assert "connection" not in dict((await client.request("GET", "/")).headers)
            resident = 90
            # The memory is measured at most four times a second.
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


def test_resident_memory_is_read_from_the_system() -> None:
    assert 2**20 < memory.resident() < 2**36


@DRIVERS
async def test_probes_with_unread_responses_are_displaced_by_newer_ones(
    driver: str, autojump_clock: MockClock, gate: trio.Event
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await gate.wait()
        await answer(send, b"x" * (2**24 if scope["query_string"] else 1))

    async with served(App(app), driver, Limits(max_in_flight=1)) as server, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(server.connected()) for _ in range(1 + RESERVED_REQUESTS)]
        for client, target in zip(busy, ["/", *["/livez?much"] * RESERVED_REQUESTS], strict=True):
            await client.send("GET", target)
            await trio.testing.wait_all_tasks_blocked()
        assert server.state.in_flight == 1 + RESERVED_REQUESTS
        for _ in range(2):
            async with server.connected() as client:
                assert (await client.request("GET", "/livez")).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert server.state.in_flight == RESERVED_REQUESTS
        assert trio.current_time() == 0
        gate.set()
        assert (await busy[0].reply()).status == 200
    assert server.state.in_flight == 0
    assert not server.state.reserve.requests


@DRIVERS
async def test_nothing_is_served_after_a_displaced_probe(
    driver: str, autojump_clock: MockClock, gate: trio.Event
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"]:
            await answer(send)
        await gate.wait()  # After the probe's response.
        if not scope["query_string"]:
            await answer(send)

    async with served(App(app), driver, Limits(max_in_flight=1)) as server, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(server.connected()) for _ in range(1 + RESERVED_REQUESTS + 1)]
        await busy[0].send("GET", "/")
        await trio.testing.wait_all_tasks_blocked()
        for client in busy[1:]:
            await client.stream.send_all(b"GET /livez?x HTTP/1.1\r\nhost: a\r\n\r\n" * 2)
            await trio.testing.wait_all_tasks_blocked()
        assert server.state.in_flight == 1 + RESERVED_REQUESTS
        total = server.state.statistics().requests_total
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert server.state.statistics().requests_total == total + RESERVED_REQUESTS
    assert server.state.in_flight == 0
