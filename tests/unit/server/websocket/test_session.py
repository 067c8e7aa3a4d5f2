"""A WebSocket session over a request in memory: the handshake's response, the record, and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from trio.testing import memory_stream_pair
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping

from tests.support.server.h2_connections import App
from umbel.core.events import RequestEnded
from umbel.core.inbound import ClientGoneError, Field
from umbel.core.model import RequestFacts, Trace
from umbel.server.handler import handler_of
from umbel.server.response.access_record import RECORD
from umbel.server.response.response_head import ApplicationError
from umbel.server.state import ServerState
from umbel.server.websocket import serve_websocket

MockClock = trio.testing.MockClock
KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")


class Handshake:
    """The part of an ``InboundRequest`` that a WebSocket uses; it records the calls."""

    method, target, scheme = "GET", b"/ws?a=b", "https"
    peer: tuple[str, int] | None = ("192.0.2.1", 5000)
    local: tuple[str, int | None] | None = ("192.0.2.2", 443)
    client_certificate: bytes | None = None
    started = 0.0
    gone = False
    stream_is_free = True

    def __init__(self, version: str = "1.1") -> None:
        self.version = version
        self.fields: tuple[Field, ...] = ((b"host", b"a"), (b"sec-websocket-version", b"13"), KEY)
        self.asked: list[Any] = []
        self.filed: list[RequestEnded] = []
        self.can_respond, self.response_complete = True, False
        self.left: Callable[[], object] | None = None
        self.client, self._stream = memory_stream_pair()
        self.client_frames = Connection(ConnectionType.CLIENT)

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        self.left = callback

    def became_stream(self) -> bool:
        return self.stream_is_free

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        self.asked.append(("respond", status, list(fields), body))
        self.can_respond, self.response_complete = False, True
        return True

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        self.asked.append(("start", status, list(fields)))

    async def send(self, data: bytes) -> None:
        self.asked.append(("send", data))
        self.can_respond = False

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        self.asked.append(("finish",))
        self.response_complete = True

    def cut(self, reason: str) -> None:
        self.asked.append(("cut",))

    async def take(self, status: int, fields: Sequence[Field]) -> Any:
        if any(b"\n" in value for _, value in fields):
            raise ValueError("a field is malformed")
        self.asked.append(("take", status, list(fields)))
        self.can_respond = False
        return self

    async def receive_some(self) -> bytes:
        return bytes(await self._stream.receive_some())

    async def send_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise ClientGoneError("gone") from error

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        begins_to_wait()
        await work

    def cancel_apart(self, reason: str) -> None:
        raise NotImplementedError

    def file_record(self, recorder: Any, ended: RequestEnded) -> None:
        self.filed.append(ended)


async def served(serve: Any, request: Handshake) -> App:
    app = App(serve)
    with trio.fail_after(60):
        state = ServerState(app, Config(), handle=handler_of(app))
        await serve_websocket(state, app, request)  # type: ignore[arg-type]  # A part of the interface.
    return app


def ended(status: int = 101) -> RequestEnded:
    return RequestEnded(RequestFacts("the id", Trace("t"), "GET", "/ws", "", 0.0), status, 0.0)


DENIED = {"type": "websocket.http.response.start", "status": 402, "headers": [(b"X-Own", b"1")]}


async def test_a_denial_response_of_one_part_is_sent_whole(
    autojump_clock: MockClock,
) -> None:
    async def whole(scope: Any, receive: Any, send: Any) -> None:
        await send(DENIED)
        await send({"type": "websocket.http.response.body", "body": b"pay"})

    async def parts(scope: Any, receive: Any, send: Any) -> None:
        await send(DENIED)
        await send({"type": "websocket.http.response.body", "body": b"pay", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b" first"})
        assert await receive() == {"type": "websocket.connect"}
        assert (await receive())["type"] == "websocket.disconnect"

    await served(whole, request := Handshake())
    assert request.asked == [("respond", 402, [(b"x-own", b"1")], b"pay")]
    await served(parts, request := Handshake())
    assert request.asked == [("start", 402, [(b"x-own", b"1")]), ("send", b"pay"), ("send", b" first"), ("finish",)]


async def test_an_incomplete_denial_response_is_cut_and_a_missing_one_gives_500(
    autojump_clock: MockClock,
) -> None:
    async def unbegun(scope: Any, receive: Any, send: Any) -> None:
        await send(DENIED)

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send(DENIED)
        await send({"type": "websocket.http.response.body", "body": b"pay", "more_body": True})

    app = await served(unbegun, request := Handshake())
    assert [each[:2] for each in request.asked] == [("respond", 500)]
    assert [record.status for record in app.recorder.requests] == [500]
    app = await served(half, request := Handshake())
    assert request.asked[-1] == ("cut",)
    assert app.recorder.events == []


async def test_a_denial_response_over_http_2_cannot_have_status_2xx(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({**DENIED, "status": 200})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    await served(serve, request := Handshake("2"))
    assert [each[:2] for each in request.asked] == [("respond", 500)]
    await served(serve, request := Handshake())
    assert [each[:2] for each in request.asked] == [("respond", 200)]


async def test_a_filed_record_is_corrected_by_the_servers_response(
    autojump_clock: MockClock,
) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][RECORD].file(None, ended())
        raise ValueError

    app = await served(crashes, request := Handshake())
    ((_, status, fields, _),) = request.asked
    assert (status, dict(fields)[b"x-request-id"]) == (500, b"the id")
    assert [(record.status, record.request.request_id) for record in request.filed] == [(500, "the id")]
    assert app.recorder.requests == []


@pytest.mark.parametrize("fails", ["respond", "drained"])
async def test_an_error_response_to_a_client_that_left_counts_no_bytes(
    fails: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    class LeftHandshake(Handshake):
        def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
            if fails == "respond":
                raise ClientGoneError("gone")
            super().respond(status, fields, body)
            return False

        async def drained(self) -> None:
            raise ClientGoneError("gone")

    app = await served(crashes, LeftHandshake())
    assert [(record.status, record.bytes_sent) for record in app.recorder.requests] == [(500, 0)]
    app = await served(crashes, Handshake())
    ((status, sent),) = [(record.status, record.bytes_sent) for record in app.recorder.requests]
    assert (status, sent > 0) == (500, True)


async def test_a_cancelled_handshake_leaves_response_and_record_to_the_server(autojump_clock: MockClock) -> None:
    async def sleeps(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            scope["extensions"][RECORD].file(None, ended())

    request = Handshake()
    with trio.move_on_after(1):
        await served(sleeps, request)
    assert (request.asked, request.left) == ([], None)
    assert request.filed == [ended()]


async def test_an_accept_with_malformed_fields_can_be_repeated(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="malformed"):
            await send({"type": "websocket.accept", "headers": [(b"x-own", b"a\nb")]})
        await send({"type": "websocket.accept", "headers": [(b"Upgrade", b"h2c"), (b"X-Own", b"1")]})

    request = Handshake()
    await request.client.send_all(request.client_frames.send(CloseConnection(1000)))
    await served(serve, request)
    ((kind, status, fields),) = request.asked
    assert (kind, status) == ("take", 101)
    assert [field for field in fields if field[0] in (b"upgrade", b"x-own")] == [
        (b"upgrade", b"websocket"),
        (b"x-own", b"1"),
    ]


@pytest.mark.parametrize("first", ["close frame", "reset"])
async def test_the_first_close_code_wins(first: str, autojump_clock: MockClock) -> None:
    heard: list[Any] = []
    request = Handshake()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        heard.append(await receive())
        assert request.left is not None
        request.left()
        await trio.testing.wait_all_tasks_blocked()
        heard.append(await receive())

    async def client() -> None:
        await trio.sleep(1)
        if first == "reset":
            assert request.left is not None
            request.left()
        await request.client.send_all(request.client_frames.send(CloseConnection(4000, "enough")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        app = await served(serve, request)
    code, reason = (4000, "enough") if first == "close frame" else (1006, "")
    assert heard == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2
    assert app.recorder.logged == []


async def close_codes(*messages: dict[str, Any]) -> list[int | str]:
    """For each message the code of the client's close event, or the text of the application's error."""
    found: list[int | str] = []
    for message in messages:

        async def serve(scope: Any, receive: Any, send: Any, message: dict[str, Any] = message) -> None:
            await send({"type": "websocket.accept"})
            try:
                await send({"type": "websocket.close", **message})
            except ApplicationError as error:
                found.append(str(error))

        request = Handshake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served, serve, request)
            while not (events := list(request.client_frames.events())):
                request.client_frames.receive_data(bytes(await request.client.receive_some()))
            (close,) = events
            assert isinstance(close, CloseConnection)
            if not (found and isinstance(found[-1], str)):
                found.append(int(close.code))
            else:
                assert close.code == 1000  # The WebSocket was open until the application returned.
            await request.client.send_all(request.client_frames.send(close.response()))
    return found


async def test_an_application_may_close_with_each_code_of_the_protocol(autojump_clock: MockClock) -> None:
    codes = [1000, 1001, 1003, 1007, 1013, 3000, 4999]
    assert await close_codes(*({"code": code, "reason": "enough"} for code in codes)) == codes
    assert await close_codes({}) == [1000]


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, None, "1000", "x", 1000.0])
async def test_a_close_code_that_cannot_be_sent_is_an_application_error(
    code: object, autojump_clock: MockClock
) -> None:
    (error,) = await close_codes({"code": code})
    assert error == f"the application closed the WebSocket with the code {code!r}, which cannot be sent"


async def test_a_close_reason_that_is_not_text_is_an_application_error(autojump_clock: MockClock) -> None:
    (error,) = await close_codes({"code": 1000, "reason": 7})
    assert error == "the application closed the WebSocket with a reason that is not text"


async def test_a_client_that_leaves_pings_unread_ends_only_its_websocket(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    request = Handshake()
    await request.client.send_all(request.client_frames.send(Ping(b"x")))
    await request.client.aclose()
    app = await served(serve, request)
    assert app.recorder.events == []


async def test_a_websocket_beyond_max_streams_is_refused_with_503(autojump_clock: MockClock) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][RECORD].file(app_records, ended())
        with pytest.raises(ClientGoneError):
            await send({"type": "websocket.accept"})
        heard.append(trio.current_time())

    request = Handshake()
    request.stream_is_free, app_records = False, object()
    app = await served(serve, request)
    ((name, status, _, body),) = request.asked
    assert (name, status) == ("respond", 503)
    assert b"limit of streams" in body
    ((record),) = request.filed
    assert (record.status, record.kind, record.detail) == (
        503,
        "overloaded",
        "The server is at its limit of streams; retry later.",
    )
    assert app.recorder.requests == []
    assert heard == [0]
