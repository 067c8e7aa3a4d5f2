"""Timeouts of HTTP/1.1 to the second: heads, bodies, idle connections, and responses that are not read."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from tests.support.server.http1 import DRIVERS, GET, POST, App, answer, hello, served
from umbel.net.stream import PlainStream
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
pytestmark = DRIVERS


async def test_a_silent_connection_is_closed_without_a_response(driver: str, autojump_clock: MockClock) -> None:
    app = App(hello)
    async with served(app, driver) as server, server.connected() as client:
        assert await client.closed_by_server()
        assert trio.current_time() == pytest.approx(5)
    assert app.recorder.events == []


@pytest.mark.parametrize("before", [0, 1, 3])
async def test_a_slow_head_gets_408_five_seconds_after_its_first_byte(
    before: int, driver: str, autojump_clock: MockClock
) -> None:
    app = App(hello)
    async with served(app, driver) as server, server.connected() as client:
        for _ in range(before):
            assert (await client.request("GET", "/")).status == 200
        await trio.sleep(3)
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                await client.stream.send_all(b"GET / HTTP/1.1\r\n")
                for number in range(100):
                    await trio.sleep(0.2)
                    await client.stream.send_all(b"x-%d: 1\r\n" % number)

            nursery.start_soon(drip)
            reply = await client.reply()
            nursery.cancel_scope.cancel(reason="refused")
        assert trio.current_time() == pytest.approx(8)
        assert (reply.status, reply["connection"]) == (408, "close")
        assert await client.closed_by_server()
    (record,) = app.recorder.requests
    assert (record.status, record.detail) == (408, "The head did not arrive in time.")
    assert record.request.request_id == reply.json["request_id"] == reply["x-request-id"]


async def test_the_idle_timeout_starts_with_the_last_response(driver: str, autojump_clock: MockClock) -> None:
    async with served(App(hello), driver) as server, server.connected() as client:
        for _ in range(4):
            assert (await client.request("GET", "/")).status == 200
            await trio.sleep(14)
        assert (await client.request("GET", "/")).status == 200
        began = trio.current_time()
        assert await client.closed_by_server()
        assert trio.current_time() - began == pytest.approx(15)


async def test_the_time_of_the_application_does_not_count_as_idle(driver: str, autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1000)
        await answer(send)

    async with served(App(slow), driver) as server, server.connected() as client:
        assert (await client.request("GET", "/")).status == 200
        assert (await client.request("GET", "/")).status == 200
        assert trio.current_time() == pytest.approx(2000)


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    await answer(send, b"%d" % size)


@pytest.mark.parametrize(
    ("first", "every", "piece"),
    [
        (b"", 1.0, 100),  # Slow.
        (b"", 100.0, 1),  # Silent from the start.
        (bytes(12_000), 100.0, 1),  # A fast start, then silence.
        (bytes(900_000), 1.0, 1),  # Nearly complete.
    ],
)
async def test_a_body_incomplete_after_the_time_for_its_length_gets_408(
    first: bytes, every: float, piece: int, driver: str, autojump_clock: MockClock
) -> None:
    app = App(reads_all)
    async with served(app, driver) as server, server.connected() as client:
        await client.stream.send_all(POST + b"content-length: 1000000\r\n\r\n" + first)
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await trio.sleep(every)
                    await client.stream.send_all(bytes(piece))

            nursery.start_soon(drip)
            reply = await client.reply("POST")
            nursery.cancel_scope.cancel(reason="refused")
        assert reply.status == 408
        assert trio.current_time() == pytest.approx(10 + 1_000_000 / 16_384)
        assert await client.closed_by_server()


async def test_a_slow_and_uneven_body_within_the_time_for_its_length_is_read(
    driver: str, autojump_clock: MockClock
) -> None:
    async with served(App(reads_all), driver) as server, server.connected() as client:
        await client.stream.send_all(POST + b"content-length: 640000\r\n\r\n")
        await trio.sleep(48)  # Of 10 + 39 seconds.
        await client.stream.send_all(bytes(640_000))
        assert (await client.reply("POST")).body == b"640000"


async def test_time_in_which_the_body_is_not_read_does_not_count(driver: str, autojump_clock: MockClock) -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(600)
        await reads_all(scope, receive, send)

    async with served(App(late), driver) as server, server.connected() as client:
        await client.stream.send_all(POST + b"content-length: 4\r\n\r\nab")
        await trio.sleep(602)
        await client.stream.send_all(b"cd")
        assert (await client.reply("POST")).body == b"4"


async def test_an_unread_response_ends_its_connection_and_its_application(
    driver: str, autojump_clock: MockClock
) -> None:
    ended: list[float] = []

    async def floods(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        finally:
            ended.append(trio.current_time())

    async with served(App(floods), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await server.state.connections.wait_value(1)
        await server.state.connections.wait_value(0)
        assert ended == [pytest.approx(30)]


@pytest.mark.parametrize("leaves", [False, True], ids=["stuck", "left"])
@pytest.mark.parametrize(("version", "reset"), [(b"1.0", 1), (b"1.1", 0)])
async def test_an_incomplete_response_without_a_length_ends_with_a_reset(
    version: bytes, reset: int, leaves: bool, driver: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the received part would look like the whole response."""
    resets: list[PlainStream] = []
    monkeypatch.setattr(PlainStream, "reset_on_close", lambda stream: resets.append(stream))

    async def floods(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

    async with served(App(floods), driver) as server, server.connected() as client:
        await client.stream.send_all(GET.replace(b"1.1", version))
        await trio.sleep(1)
        if leaves:
            await client.stream.send_eof()
        await server.state.connections.wait_value(0)
        assert len(resets) == reset


async def test_the_write_timeout_measures_progress(driver: str, autojump_clock: MockClock) -> None:
    size = 4 * 2**20

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(size))

    async with served(App(large), driver, Limits(write_timeout=2)) as server, server.connected() as client:
        await client.stream.send_all(GET)
        received = 0
        while received < size:
            received += len(await client.stream.receive_some(131072))
            await trio.sleep(1)
        assert trio.current_time() > 10


async def test_a_head_received_in_time_is_served_by_a_late_loop(driver: str, autojump_clock: MockClock) -> None:
    """The event loop is blocked for longer than the head timeout. The client is not at fault."""
    async with served(App(hello), driver) as server:
        for _ in range(10):
            async with server.connected() as client:
                assert (await client.request("GET", "/")).status == 200
                # No other task runs between the two statements.
                os.write(client.stream.socket.fileno(), GET)
                autojump_clock.jump(60)
                assert (await client.reply()).status == 200


async def test_an_empty_line_after_a_request_begins_no_head(driver: str, autojump_clock: MockClock) -> None:
    async with served(App(hello), driver) as server, server.connected() as client:
        await client.stream.send_all(GET + b"\r\n")
        assert (await client.reply()).status == 200
        await trio.sleep(10)
        assert (await client.request("GET", "/")).status == 200
        began = trio.current_time()
        await client.stream.send_all(b"\r\n")
        assert await client.closed_by_server()
        assert trio.current_time() == pytest.approx(began + 15)
