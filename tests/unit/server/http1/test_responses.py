"""HTTP/1.1 responses of ASGI applications: framing, keep-alive, and application errors."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import trio

from tests.support.server.http1 import DRIVERS, GET, POST, App, answer, hello, served
from umbel.core.failure_kinds import Kind
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
Messages = list[dict[str, Any]]


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: dict[str, Any]) -> App:
    async def send_all(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return App(send_all)


async def raw(app: Any, request: bytes) -> bytes:
    """Send one request. Return all bytes until the server closes the connection."""
    async with served(app) as server, server.connected() as client:
        await client.stream.send_all(request)
        received = b""
        while data := await client.stream.receive_some():
            received += data
    return received


CLOSE = GET[:-2] + b"connection: close\r\n\r\n"
OLD = b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"


@pytest.mark.parametrize(
    ("messages", "request_", "expected"),
    [
        ([start(), body(b"abc")], CLOSE, b"content-length: 3\r\nconnection: close\r\n\r\nabc"),
        ([start(), body(b"ab", True), body(b"", True), body(b"c")], CLOSE,
         b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ([start(), body(b"ab", True), body(b"c")], OLD, b"connection: close\r\n\r\nabc"),
        ([start(200, (b"content-length", b"3")), body(b"ab", True), body(b"c")], CLOSE,
         b"content-length: 3\r\nconnection: close\r\n\r\nabc"),
        ([start(204, (b"content-length", b"3")), body(b"abc")], CLOSE, b"connection: close\r\n\r\n"),
        ([start(304, (b"content-length", b"3")), body(b"")], CLOSE, b"content-length: 3\r\nconnection: close\r\n\r\n"),
        ([start(), body(b"abc")], b"HEAD" + CLOSE[3:], b"content-length: 3\r\nconnection: close\r\n\r\n"),
        ([start(), body(b"", True), body(b"c")], b"HEAD" + CLOSE[3:], b"connection: close\r\n\r\n"),
        ([start(200, (b"Transfer-Encoding", b"gzip"), (b"Keep-Alive", b"9")), body(b"a")], CLOSE,
         b"content-length: 1\r\nconnection: close\r\n\r\na"),
        ([start(200, (b"date", b"now"), (b"X-A", b"1")), body(b"a")], CLOSE,
         b"200 OK\r\ndate: now\r\nx-a: 1\r\ncontent-length: 1\r\nconnection: close\r\n\r\na"),
        ([start(200, (b"connection", b"close")), body(b"a")], GET, b"content-length: 1\r\nconnection: close\r\n\r\na"),
    ],
)  # fmt: skip
async def test_a_response_is_framed_as_its_version_allows(
    messages: Messages, request_: bytes, expected: bytes, autojump_clock: MockClock
) -> None:
    received = await raw(sends(*messages), request_)
    assert received.startswith(b"HTTP/1.1 ")
    assert received.endswith(expected)


async def test_an_http_1_0_client_may_keep_its_connection(autojump_clock: MockClock) -> None:
    async with served(App(hello)) as server, server.connected() as client:
        for _ in range(2):
            await client.stream.send_all(OLD)
            assert b"connection: keep-alive\r\n\r\nhello" in await client.stream.receive_some()


TRAILERS = [
    start(trailers=True),
    body(b"a"),
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True},
    {"type": "http.response.trailers", "headers": [(b"x-end", b"2")]},
]


async def test_trailers_are_sent_to_clients_that_accept_them(autojump_clock: MockClock) -> None:
    received = await raw(sends(*TRAILERS), CLOSE[:-2] + b"te: trailers\r\n\r\n")
    assert received.endswith(b"1\r\na\r\n0\r\nx-sum: 1\r\nx-end: 2\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [body(b"a")],
        [start(99), body()],
        [start(101), body()],
        [start(600), body()],
        [start(200, (b"x-a", b"1\r\nx-b: 2")), body()],
        [start(200, (b"x-a", b"1\n")), body()],
        [start(200, (b"x-a", b"\0")), body()],
        [start(200, (b"x a", b"1")), body()],
        [start(200, (b"x-a: 1\r\nx-b", b"2")), body()],
        [start(200, (b"content-length", b"1"), (b"content-length", b"1")), body(b"a")],
        [start(200, (b"content-length", b"-1")), body(b"a")],
        [start(200, (b"content-length", b"1")), body(b"ab")],
        [start(200, (b"content-length", b"3")), body(b"ab")],
        [start(), start()],
        [{"type": "http.response.push"}],
    ],
)
async def test_an_application_error_before_the_first_byte_gives_500(
    messages: Messages, autojump_clock: MockClock
) -> None:
    app = sends(*messages)
    received = await raw(app, GET)
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"connection: close\r\n" in received
    (note,) = app.recorder.logged
    assert (note.event, type(note.error).__name__) == ("request.crashed", "ApplicationError")
    assert ".py:" in note.message
    (record,) = app.recorder.requests
    assert record.status == 500
    assert b"x-request-id: %b\r\n" % record.request.request_id.encode() in received


@pytest.mark.parametrize(
    "messages",
    [
        [start(), body(b"a", True)],
        [start(200, (b"content-length", b"3")), body(b"a", True), body(b"b")],
        [start(200, (b"content-length", b"3")), body(b"a", True), body(b"bcd")],
        [start(), body(b"a", True), start()],
    ],
)
async def test_an_application_error_after_the_head_cuts_off_the_response(
    messages: Messages, autojump_clock: MockClock
) -> None:
    app = sends(*messages)
    received = await raw(app, GET)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith((b"\r\na", b"a\r\n"))
    assert [note.event for note in app.recorder.logged] == ["request.crashed"]


async def test_a_second_response_is_an_error_and_is_not_sent(autojump_clock: MockClock) -> None:
    app = sends(start(), body(b"a"), start(), body(b"b"))
    received = await raw(app, GET)
    assert received.endswith(b"content-length: 1\r\n\r\na")
    assert len(app.recorder.logged) == 1


class BoomError(Exception):
    pass


@DRIVERS
@pytest.mark.parametrize("wait", [False, True])
async def test_an_exception_is_logged_with_its_class_and_location(
    wait: bool, driver: str, autojump_clock: MockClock
) -> None:
    async def crash(scope: Any, receive: Any, send: Any) -> None:
        if wait:
            await trio.sleep(1)
        if scope["path"] == "/crash":
            async with trio.open_nursery():
                raise BoomError("secret")
        await answer(send)

    app = App(crash)
    async with served(app, driver) as server:
        async with server.connected() as client:
            reply = await client.request("GET", "/crash")
            assert (reply.status, reply["connection"]) == (500, "close")
            assert "secret" not in reply.body.decode()
            assert await client.closed_by_server()
        async with server.connected() as client:
            assert (await client.request("GET", "/x")).status == 200
    (note,) = app.recorder.logged
    assert note.message.startswith(f"BoomError at {__file__}:")
    assert server.state.statistics().failed == 1


@DRIVERS
async def test_an_application_that_calls_exit_ends_only_its_request(driver: str, autojump_clock: MockClock) -> None:
    async def leave(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/exit":
            raise SystemExit(3)
        await trio.sleep(1)
        await answer(send)

    app = App(leave)
    async with served(app, driver) as server, server.connected() as other:
        await other.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as client:
            assert (await client.request("GET", "/exit")).status == 500
        assert (await other.reply()).status == 200
    (note,) = app.recorder.logged
    assert note.message.startswith("SystemExit at ")


async def test_context_variables_are_unset_in_the_next_request(autojump_clock: MockClock) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    async def remembers(scope: Any, receive: Any, send: Any) -> None:
        before = user.get()
        user.set(scope["path"])
        await trio.lowlevel.checkpoint()
        assert user.get() == scope["path"]
        await answer(send, before.encode())

    async with served(App(remembers)) as server, server.connected() as client:
        assert [(await client.request("GET", f"/{n}")).body for n in range(3)] == [b"nobody"] * 3


# 100-continue, and bodies that nobody reads.

EXPECTS = POST + b"expect: 100-continue\r\n"


async def reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await answer(send)


async def test_100_is_sent_when_the_application_reads_the_body(autojump_clock: MockClock) -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(7)
        await reads(scope, receive, send)

    async with served(App(late)) as server, server.connected() as client:
        await client.stream.send_all(EXPECTS + b"content-length: 3\r\n\r\n")
        assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert trio.current_time() == pytest.approx(7)
        await client.stream.send_all(b"abc")
        assert (await client.reply("POST")).status == 200


async def test_no_100_if_the_body_is_not_read_or_has_come(autojump_clock: MockClock) -> None:
    async with served(App(hello)) as server, server.connected() as client:
        await client.stream.send_all(EXPECTS + b"content-length: 3\r\n\r\n")
        reply = await client.reply("POST")
        assert (reply.status, reply["connection"]) == (200, "close")
        assert await client.closed_by_server()
    async with served(App(reads)) as server, server.connected() as client:
        await client.stream.send_all(EXPECTS + b"content-length: 3\r\n\r\nabc")
        assert (await client.reply("POST")).status == 200
        assert client.received.startswith(b"HTTP/1.1 200")


async def test_a_declared_body_over_the_limit_gets_413_before_its_first_byte(autojump_clock: MockClock) -> None:
    app = App(reads)
    async with served(app, limits=Limits(max_body=10)) as server, server.connected() as client:
        await client.stream.send_all(EXPECTS + b"content-length: 11\r\n\r\n")
        assert (await client.reply("POST")).status == 413
        assert client.received.startswith(b"HTTP/1.1 413")
        assert await client.closed_by_server()
    (record,) = app.recorder.requests
    assert (record.status, record.kind, record.detail) == (413, Kind.BAD_REQUEST, "The body is over 10 bytes.")


@pytest.mark.parametrize(("size", "kept"), [(1000, True), (64 * 1024, True), (64 * 1024 + 1, False)])
async def test_a_small_unread_body_is_discarded_and_a_large_one_ends_the_connection(
    size: int, kept: bool, autojump_clock: MockClock
) -> None:
    async with served(App(hello)) as server, server.connected() as client:
        await client.stream.send_all(POST + b"content-length: %d\r\n\r\n" % size)
        reply = await client.reply("POST")
        assert ("connection" not in dict(reply.headers)) is kept
        if kept:
            await client.stream.send_all(bytes(size))
            assert (await client.request("GET", "/")).status == 200
        else:
            assert await client.closed_by_server()


@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\n22\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"])
async def test_a_malformed_body_gets_400_and_gives_a_disconnect(rest: bytes, autojump_clock: MockClock) -> None:
    told: list[Any] = []

    async def listens(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["umbel.error_response"])

    app = App(listens)
    async with served(app) as server, server.connected() as client:
        await client.stream.send_all(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n" + rest + GET)
        reply = await client.reply("POST")
        assert (reply.status, reply["connection"]) == (400, "close")
        assert await client.closed_by_server()
    ((error_response, request_id),) = told
    assert (error_response.status, request_id) == (400, reply["x-request-id"])
    # The application was notified, so it writes the record.
    assert app.recorder.events == []
    assert server.state.statistics().refused == {400: 1}


@pytest.mark.parametrize(
    "request_", [b"HEAD x HTTP/1.1\r\nhost: a\r\n\r\n", b"HEAD / HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n"]
)
async def test_an_error_response_to_head_has_no_content_either(request_: bytes, autojump_clock: MockClock) -> None:
    async with served(App(hello)) as server, server.connected() as client:
        await client.stream.send_all(request_)
        reply = await client.reply("HEAD")
        assert (reply.status, int(reply["content-length"]) > 100) == (400, True)
        if b"x y" not in request_:
            assert (await client.request("GET", "/")).body == b"hello"
    assert client.received.count(b"{") == 0


@DRIVERS
async def test_all_sending_tasks_continue_when_the_client_reads(driver: str, autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def part() -> None:
            for _ in range(20):
                await send(body(bytes(100_000), True))

        await send(start())
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(part)
        await send(body())

    async with served(App(app), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.sleep(3)
        assert len((await client.reply()).body) == 6_000_000
        assert trio.current_time() == 3
