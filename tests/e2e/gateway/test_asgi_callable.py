"""Details of the ASGI specification, with ASGI callables, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.server.http_channels import PROTOCOLS, ask, opened, rest
from tests.support.server.serving import serving

OVER = pytest.mark.parametrize("protocol", PROTOCOLS)
Handler = Callable[[Any, Any, Any], Awaitable[None]]


def only_http(handler: Handler) -> Handler:
    """An application without a lifespan: it raises an exception for any scope but http, as ASGI allows."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        await handler(scope, receive, send)

    return app


async def respond(send: Any, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise EOFError("the client has gone")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


@OVER
async def test_an_application_without_a_lifespan_is_served(protocol: str) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"here")

    async with serving(app) as port:
        assert (await ask(protocol, port, "GET", "/"))[2] == b"here"


@OVER
async def test_100_continue_is_sent_when_the_application_reads_the_body(protocol: str) -> None:
    read = trio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        await respond(send, await body_of(receive))

    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            await channel.request("POST", "/", [("expect", "100-continue"), ("content-length", "4")], end=False)
            with trio.move_on_after(0.1):
                await channel.answer()
            assert channel.interim == []
            read.set()
            async with trio.open_nursery() as nursery:

                async def send_body() -> None:
                    while not channel.interim:
                        await wait_all_tasks_blocked(0.002)
                    await channel.body(b"body", end=True)

                nursery.start_soon(send_body)
                assert (await channel.answer())[0] == 200
            assert (channel.interim, await rest(channel)) == ([100], b"body")


@OVER
async def test_100_continue_is_not_sent_if_the_response_comes_first(protocol: str) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no", 403)

    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            await channel.request("POST", "/", [("expect", "100-continue"), ("content-length", "4")], end=False)
            assert (await channel.answer())[0] == 403
            assert (channel.interim, await rest(channel)) == ([], b"no")


@OVER
async def test_trailers_are_sent_after_the_body_if_the_scope_offers_them(protocol: str) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if "http.response.trailers" not in scope["extensions"]:
            await respond(send, b"none offered")
            return
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})

    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            await channel.request("GET", "/", [("te", "trailers")])
            await channel.answer()
            body = await rest(channel)
            assert (body, channel.trailers) in [(b"body", [("x-sum", "42")]), (b"none offered", [])]
            if protocol == "HTTP/1.1":
                assert body == b"body"
            # The connection serves another request after the trailers.
            await channel.request("GET", "/", [("te", "trailers")])
            assert (await channel.answer())[0] == 200
            assert await rest(channel) == body


@OVER
@pytest.mark.parametrize("status", [204, 304])
async def test_204_and_304_have_no_body_whatever_the_application_sends(protocol: str, status: int) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"something", status)

    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            for _ in range(2):
                await channel.request("GET", "/")
                assert ((await channel.answer())[0], await rest(channel)) == (status, b"")


@OVER
async def test_an_application_that_returns_without_a_response_is_a_500(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    async with serving(app) as port:
        assert (await ask(protocol, port, "GET", "/"))[0] == 500
    assert caplog.text


LENGTHS = pytest.mark.parametrize("body", [b"short", b"far too long for that"], ids=["too short", "too long"])


def saying_ten(body: bytes) -> Handler:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, body, headers=[(b"content-length", b"10")])

    return app


@LENGTHS
async def test_a_wrong_content_length_is_a_500_and_ends_the_connection(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A surplus byte must not become a part of the next response, and a missing byte must not be taken from it."""
    received = b""
    async with serving(saying_ten(body)) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        with trio.fail_after(5):
            async for data in stream:
                received += data
    assert received.count(b"HTTP/1.1 ") == 1
    head, _, sent = received.partition(b"\r\n\r\n")
    # The length is known to be wrong before the first byte is sent.
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"application/problem+json" in head
    assert body not in sent
    assert caplog.text


@LENGTHS
async def test_a_wrong_content_length_over_http2_is_a_500(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(saying_ten(body)) as port, opened("HTTP/2", port) as channel:
        with trio.fail_after(5):
            await channel.request("GET", "/")
            assert (await channel.answer())[0] == 500
            assert body not in await rest(channel)


@OVER
async def test_after_the_response_receive_gives_disconnect(protocol: str) -> None:
    told: list[Any] = []
    finished = trio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await body_of(receive) == b""
        await respond(send, b"done")
        told.append((await receive())["type"])
        finished.set()

    async with serving(app) as port:
        assert (await ask(protocol, port, "GET", "/"))[2] == b"done"
        with trio.fail_after(5):
            await finished.wait()
    assert told == ["http.disconnect"]


@OVER
async def test_send_to_a_client_that_left_raises_oserror_or_is_ignored(protocol: str) -> None:
    ended = trio.Event()
    outcomes: list[BaseException | str] = []

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"here", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            with trio.fail_after(5):
                for _ in range(100):
                    await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            outcomes.append("ignored")
        except (OSError, trio.Cancelled) as error:
            outcomes.append(error)
            raise
        finally:
            ended.set()

    async with serving(app) as port, opened(protocol, port) as channel:
        await channel.request("GET", "/")
        with trio.fail_after(5):
            await channel.answer()
        await channel.abandon()
        with trio.fail_after(5):
            await ended.wait()
    assert len(outcomes) == 1


@OVER
async def test_a_client_that_does_not_read_blocks_send(protocol: str) -> None:
    sent = 0

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(16_384), "more_body": True})
            sent += 16_384

    async with serving(app) as port, opened(protocol, port) as channel:
        await channel.request("GET", "/")
        with trio.fail_after(10):
            before = -1
            while sent != before or not sent:
                before = sent
                await wait_all_tasks_blocked(0.1)
        # The buffers of two sockets; over HTTP/2 also a window of 64 KiB.
        assert 0 < sent < 16_000_000
        await channel.abandon()


@OVER
async def test_an_application_that_does_not_read_stops_a_sending_client(protocol: str) -> None:
    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            await trio.sleep_forever()

    sent = 0
    async with serving(app) as port, opened(protocol, port) as channel:
        await channel.request("POST", "/", end=False)
        with trio.move_on_after(1):
            while sent < 1_000_000_000:
                await channel.body(bytes(16_384))
                sent += 16_384
        assert 0 < sent < 16_000_000
        await channel.abandon()


async def test_pipelined_requests_are_served_one_after_the_other() -> None:
    order: list[str] = []

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(scope["path"])
        await wait_all_tasks_blocked(0.01)
        order.append(f"{scope['path']} done")
        await respond(send, scope["path"].encode(), headers=[(b"content-length", b"2")])

    async with serving(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        last = b"GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await stream.send_all(b"".join(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % name for name in (b"a", b"b")) + last)
        received = b""
        with trio.fail_after(5):
            async for data in stream:
                received += data
    assert order == ["/a", "/a done", "/b", "/b done", "/c", "/c done"]
    assert [part[:2] for part in received.split(b"\r\n\r\n")[1:]] == [b"/a", b"/b", b"/c"]


async def test_a_client_that_leaves_with_a_pipelined_request_ends_the_first() -> None:
    began, left = trio.Event(), trio.Event()

    @only_http
    async def app(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            left.set()

    async with serving(app) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            with trio.fail_after(5):
                await began.wait()
        with trio.fail_after(5):
            await left.wait()
