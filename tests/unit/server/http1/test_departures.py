"""Clients that half-close or leave at each moment of a request: who is notified, and who is cancelled."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from tests.support.server.http1 import DRIVERS, GET, POST, answer, served

MockClock = trio.testing.MockClock
pytestmark = DRIVERS


class Waiting:
    """An application that waits, and records how its wait ended."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.ended = trio.Event()
        self.reasons: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.wait(receive, send)
        except trio.Cancelled as error:
            self.reasons.append(error.reason)
            raise
        finally:
            self.ended.set()

    async def wait(self, receive: Any, send: Any) -> None:
        self.began.set()
        await trio.sleep_forever()


async def test_an_application_not_in_receive_is_cancelled_with_client_gone(
    driver: str, autojump_clock: MockClock
) -> None:
    app = Waiting()
    async with served(app, driver) as server:
        async with server.connected() as client:
            await client.stream.send_all(GET)
            await app.began.wait()
        await app.ended.wait()
        assert trio.current_time() == 0
    assert app.reasons == ["client-gone"]


@pytest.mark.parametrize("behind", [GET, GET * 3, b"GET /half", bytes(200_000)])
async def test_a_departure_behind_unread_bytes_is_noticed(
    behind: bytes, driver: str, autojump_clock: MockClock
) -> None:
    if driver == "wait":
        behind = b""  # Without epoll an end behind unread bytes is not reported.
    app = Waiting()
    async with served(app, driver) as server:
        async with server.connected() as client:
            await client.stream.send_all(GET)
            await app.began.wait()
            with trio.move_on_after(1):
                await client.stream.send_all(behind)
        await app.ended.wait()
    assert app.reasons == ["client-gone"]
    assert server.state.statistics().requests_total == 1


async def test_an_application_in_receive_gets_a_disconnect_and_no_cancel(
    driver: str, autojump_clock: MockClock
) -> None:
    messages: list[Any] = []

    class Listening(Waiting):
        async def wait(self, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            self.began.set()
            messages.append(await receive())
            await trio.sleep(10)  # The cleanup of the application.
            messages.append(await receive())

    app = Listening()
    async with served(app, driver) as server:
        async with server.connected() as client:
            await client.stream.send_all(GET)
            await app.began.wait()
        await app.ended.wait()
    assert messages == [{"type": "http.disconnect"}] * 2
    assert app.reasons == []


async def test_a_send_after_the_client_has_left_raises_an_oserror(driver: str, autojump_clock: MockClock) -> None:
    errors: list[Exception] = []

    class Sending(Waiting):
        async def wait(self, receive: Any, send: Any) -> None:
            await receive()
            self.began.set()
            await receive()
            for _ in range(2):
                with pytest.raises(OSError, match="gone") as caught:
                    await answer(send)
                errors.append(caught.value)

    app = Sending()
    async with served(app, driver) as server:
        async with server.connected() as client:
            await client.stream.send_all(GET)
            await app.began.wait()
        await app.ended.wait()
    assert len(errors) == 2


async def test_a_truncated_body_gives_a_disconnect(driver: str, autojump_clock: MockClock) -> None:
    types: list[str] = []

    class Reading(Waiting):
        async def wait(self, receive: Any, send: Any) -> None:
            while "http.disconnect" not in types:
                self.began.set()
                types.append((await receive())["type"])

    app = Reading()
    async with served(app, driver) as server:
        async with server.connected() as client:
            await client.stream.send_all(POST + b"content-length: 10\r\n\r\nabc")
            await app.began.wait()
        await app.ended.wait()
    assert types == ["http.request", "http.disconnect"]


def end_with(client: Any, data: bytes) -> None:
    """Send bytes and the end of the stream without a checkpoint in between."""
    sock = client.stream.socket
    raw = socket.socket(fileno=sock.fileno())
    raw.send(data)
    raw.shutdown(socket.SHUT_WR)
    raw.detach()


@pytest.mark.parametrize("data", [GET, GET + GET, POST + b"content-length: 3\r\n\r\nabc"])
async def test_a_half_closed_client_gets_its_responses(data: bytes, driver: str, autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await trio.sleep(1)
        await answer(send)

    async with served(slow, driver) as server, server.connected() as client:
        end_with(client, data)
        for _ in range(data.count(b"HTTP/1.1")):
            reply = await client.reply()
            assert reply.body == b"hello"
        assert reply["connection"] == "close"
        assert await client.closed_by_server()


async def test_work_after_the_response_is_not_cancelled(driver: str, autojump_clock: MockClock) -> None:
    done: list[float] = []

    async def afterwards(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)
        assert await receive() == {"type": "http.disconnect"}
        await trio.sleep(100)
        done.append(trio.current_time())

    async with served(afterwards, driver) as server:
        async with server.connected() as client:
            assert (await client.request("GET", "/")).body == b"hello"
        await server.state.connections.wait_value(0)
    assert done == [pytest.approx(100)]


async def test_a_second_request_is_served_after_a_request_that_waited(driver: str, autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1)
        await answer(send, scope["path"].encode())

    async with served(slow, driver) as server, server.connected() as client:
        await client.stream.send_all(b"".join(GET.replace(b"/x", b"/%d" % n) for n in range(5)))
        assert [(await client.reply()).body for _ in range(5)] == [b"/%d" % n for n in range(5)]
        assert (await client.request("GET", "/again")).body == b"/again"
