"""Graceful shutdown to the second: idle connections, requests in flight, and handlers that do not end."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.logs.records import Records
from tests.support.server.http1 import DRIVERS, GET, POST, App, Server, answer, hello, served
from umbel.core.inbound import AnyHead, Field, InboundApplication, InboundRequest
from umbel.server.limits.server_limits import Limits
from umbel.server.phase import Phase
from umbel.server.shutdown import drain, leave

MockClock = trio.testing.MockClock
pytestmark = DRIVERS


async def stop(server: Server) -> float:
    """Drain the server. Return the seconds that it took."""
    began = trio.current_time()
    await leave(server.state)
    await drain(server.state, lambda: server.nursery.cancel_scope.cancel(reason="late"))
    return trio.current_time() - began


async def test_a_drain_without_connections_ends_at_once(driver: str, autojump_clock: MockClock) -> None:
    async with served(App(hello), driver) as server:
        assert await stop(server) == 0
        assert server.state.statistics().phase is Phase.DRAINING


async def test_an_idle_connection_stays_for_drain_idle_and_its_next_response_says_close(
    driver: str, autojump_clock: MockClock
) -> None:
    async with (
        served(App(hello), driver, keep_alive_timeout=600) as server,
        server.connected() as asks,
        server.connected() as idle,
        server.connected() as new,
    ):
        for client in (asks, idle):
            assert "connection" not in dict((await client.request("GET", "/")).headers)

        async def late() -> None:
            await trio.sleep(1.5)
            assert (await asks.request("GET", "/"))["connection"] == "close"
            assert await asks.closed_by_server()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            assert await stop(server) == pytest.approx(2)
        assert await idle.closed_by_server()
        assert await new.closed_by_server()


async def test_a_request_in_flight_is_finished_during_a_drain(driver: str, autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(10)
        await answer(send)

    async with served(App(slow), driver, graceful_timeout=20) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert await stop(server) == pytest.approx(10)
        reply = await client.reply()
        assert (reply.status, reply["connection"]) == (200, "close")


async def test_a_request_longer_than_graceful_timeout_is_cancelled_with_a_reason(
    driver: str, autojump_clock: MockClock
) -> None:
    reasons: list[str | None] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(error.reason)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            raise

    app = App(endless)
    async with served(app, driver, graceful_timeout=20) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert await stop(server) == pytest.approx(21)
        assert server.state.phase.value is Phase.CUT
        assert await client.closed_by_server()
    assert reasons == ["late"]
    assert app.recorder.logged == []


async def test_cleanup_that_takes_too_long_is_logged(driver: str, autojump_clock: MockClock) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30)

    app = App(stubborn)
    limits = Limits(cancel_timeout=3)
    async with served(app, driver, limits, graceful_timeout=5) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert await stop(server) == pytest.approx(8)
    notes = [note for note in app.recorder.logged if note.event == "drain.stuck"]
    assert [note.message for note in notes] == [
        "connections still open 3 s after they were cut: 1; "
        "the cleanup of their handlers takes longer than cancel_timeout"
    ]


async def test_a_client_that_does_not_read_does_not_delay_the_end(driver: str, autojump_clock: MockClock) -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(2**24))

    async with served(App(large), driver, graceful_timeout=4) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await client.stream.receive_some(1)
        assert await stop(server) == pytest.approx(4)


async def test_the_application_is_notified_before_drain_delay(driver: str, autojump_clock: MockClock) -> None:
    app: Any = App(hello)
    heard: list[float] = []
    app.begin_drain = lambda: heard.append(trio.current_time())
    async with served(app, driver, Limits(drain_delay=3)) as server, trio.open_nursery() as nursery:
        nursery.start_soon(stop, server)
        await trio.sleep(2)
        assert server.state.phase.value is Phase.LEAVING
        async with server.connected() as client:
            assert "connection" not in dict((await client.request("GET", "/")).headers)
    assert heard == [0]


async def test_a_response_cut_while_it_is_drained_is_not_complete(driver: str, autojump_clock: MockClock) -> None:
    class Large(InboundApplication):
        recorder = Records()

        async def handle(self, request: InboundRequest) -> None:
            assert not request.respond(200, [], bytes(2**24))
            try:
                await request.drained()
            finally:
                answered.append(request.response_complete)

        def error_response_fields(self, head: AnyHead, fields: list[Field]) -> list[Field]:
            return fields

    answered: list[bool] = []
    async with served(Large(), driver, graceful_timeout=4) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await client.stream.receive_some(1)
        assert await stop(server) == pytest.approx(4)
    assert answered == [False]
    (record,) = Large.recorder.requests
    assert (record.status, record.detail) == (200, "the response was cut off before its end")


@pytest.mark.parametrize("status", [200, 413])
async def test_a_client_has_time_to_read_a_last_response(status: int, driver: str, autojump_clock: MockClock) -> None:
    """After the response the server reads on (lingers), also in a drain without another request."""
    length = 10**6 if status == 413 else 1000
    limits = Limits(max_body=1000, drain_idle=0)
    async with served(App(hello), driver, limits, graceful_timeout=20) as server, server.connected() as client:
        await client.stream.send_all(POST + b"content-length: %d\r\n\r\n" % length)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, server)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.5)
            await client.stream.send_all(bytes(1000))
            assert (await client.reply("POST")).status == status
            await client.stream.send_eof()
