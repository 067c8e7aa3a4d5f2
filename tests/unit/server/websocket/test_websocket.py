"""A WebSocket over HTTP/1.1 and HTTP/2: its close from each side, its limits, and the application's messages."""

from __future__ import annotations

import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.support.logs.records import Records
from tests.support.server.h2_connections import App, h2_connected
from tests.support.server.http1 import served
from tests.support.server.ws_client import WsClient, upgrade
from umbel.server.limits.server_limits import Limits
from umbel.server.phase import Phase
from umbel.server.state import ServerState

MockClock = trio.testing.MockClock


@dataclass
class Connected:
    client: WsClient
    stream: Any
    state: ServerState
    records: Records
    over: trio.Event


@asynccontextmanager
async def websocket(
    serve: Any, limits: Limits | None = None, *, head: bytes = b"", **settings: Any
) -> AsyncIterator[Connected]:
    """Serve a WebSocket by ``app``; the client has sent ``head``."""
    app = App(serve)
    over = trio.Event()
    async with served(app, limits=limits, include_server_header=False, **settings) as server:

        async def watch() -> None:
            await server.state.connections.wait_value(1)
            await server.state.connections.wait_value(0)
            over.set()

        server.nursery.start_soon(watch)
        async with server.connected() as raw:
            if head:
                await raw.stream.send_all(head)
            yield Connected(WsClient(raw.stream), server.socket, server.state, app.recorder, over)
        with trio.fail_after(60):
            await over.wait()
        assert not server.state.open


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


async def test_an_echo_and_a_clean_close(autojump_clock: MockClock) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        heard.append(await receive())

    async with websocket(serve) as here:
        assert isinstance(await here.client.open(), AcceptConnection)
        await here.client.text("hello")
        assert await here.client.message() == "hello"
        await here.client.send(BytesMessage(b"\x00\xff"))
        assert await here.client.message() == b"\x00\xff"
        await here.client.send(CloseConnection(code=4000, reason="enough"))
        await here.client.ended()
    assert heard == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]
    assert here.records.logged == []
    assert trio.current_time() == 0


async def test_the_scope_is_what_asgi_promises(autojump_clock: MockClock) -> None:
    scopes: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": [(b"x-own", b"1")]})

    async with websocket(serve, root_path="/root") as here:
        accepted = await here.client.open("/caf%C3%A9?q=1", subprotocols=["one", "two"])
        assert accepted.subprotocol == "two"
        assert (b"x-own", b"1") in accepted.extra_headers
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "1.1")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/café", b"/caf%C3%A9", b"q=1")
    assert (scope["subprotocols"], scope["root_path"]) == (["one", "two"], "/root")


@pytest.mark.parametrize(
    "head",
    [
        upgrade(more=b"Sec-WebSocket-Protocol: \xff\r\n"),
        upgrade(more=b"Sec-WebSocket-Extensions: \xff\r\n"),
        upgrade(more=b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        upgrade().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        upgrade().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff"),
        upgrade().replace(b"Version: 13", b"Version: 8"),
        upgrade().replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    ],
)
async def test_a_handshake_that_breaks_a_rule_is_refused_with_a_record(autojump_clock: MockClock, head: bytes) -> None:
    async with websocket(echo, head=head) as here:
        await here.over.wait()
        answer = await here.client.stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in answer
    assert (b"\r\nsec-websocket-version: 13\r\n" in answer) == (b"Version: 13" not in head)
    (record,) = here.records.requests
    assert (record.status, bool(record.detail)) == (400, True)


async def test_bytes_before_the_accept_are_kept_for_the_application(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1)
        await echo(scope, receive, send)

    frame = b"\x81\x82\x00\x00\x00\x00hi"
    async with websocket(serve, head=upgrade() + frame[:1]) as here:
        await here.client.stream.send_all(frame[1:])
        await trio.sleep(2)
        assert (await here.client.stream.receive_some()).endswith(b"\r\n\r\n\x81\x02hi")


async def test_an_application_may_refuse_in_two_ways(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/close":
            await send({"type": "websocket.close"})
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "websocket.http.response.start", "status": 402, "headers": headers})
            if scope["path"] == "/pay":
                await send({"type": "websocket.http.response.body", "body": b"pay", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b" first"})

    async with websocket(serve) as here:
        refused = await here.client.open("/close")
        assert (type(refused), refused.status_code) == (RejectConnection, 403)
    async with websocket(serve, head=upgrade(b"/pay")) as here:
        await here.over.wait()
        answer = await here.client.stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 402 ")
        assert answer.endswith(b"connection: close\r\n\r\n3\r\npay\r\n6\r\n first\r\n0\r\n\r\n")
    async with websocket(serve, head=upgrade(b"/whole")) as here:
        await here.over.wait()
        answer = await here.client.stream.receive_some()
        assert answer.endswith(b"\r\ncontent-length: 6\r\nconnection: close\r\n\r\n first")


async def test_a_failed_application_gives_500_before_its_accept_and_1011_after(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/late":
            await send({"type": "websocket.accept"})
        raise ValueError("secret")

    async with websocket(serve) as early:
        assert (await early.client.open("/early")).status_code == 500
    async with websocket(serve) as late:
        await late.client.open("/late")
        assert await late.client.ended() == 1011
    for here in (early, late):
        assert [note.event for note in here.records.logged] == ["websocket.crashed"]


async def test_an_application_that_returns_closes_with_1000(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})

    async with websocket(serve) as here:
        await here.client.open()
        assert await here.client.message() == "bye"
        assert await here.client.ended() == 1000


async def test_a_client_that_leaves_notifies_or_cancels_the_application(
    autojump_clock: MockClock,
) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            if scope["path"] == "/listens":
                heard.append((await receive())["code"])
                await trio.sleep(1)
                with pytest.raises(OSError, match="the client has gone"):
                    await send({"type": "websocket.send", "text": "anybody?"})
                heard.append(trio.current_time())
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            heard.append(cancelled.reason)
            raise

    for path in ("/listens", "/sleeps"):
        async with websocket(serve, Limits(cancel_timeout=5)) as here:
            await here.client.open(path)
            await trio.testing.wait_all_tasks_blocked()
            await here.client.stream.aclose()
            await here.over.wait()
    assert heard == [1006, 1, None, "client-gone"]  # It had five seconds to clean up; a deadline has no reason.
    assert trio.current_time() == pytest.approx(5)


async def test_an_application_that_closes_gets_a_disconnect_in_any_case(
    autojump_clock: MockClock,
) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] != "/refused":
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        heard.append(((await receive())["type"], trio.current_time()))

    async with websocket(serve, Limits(cancel_timeout=5), head=upgrade(b"/closed")) as here:
        await here.over.wait()
    async with websocket(serve, Limits(cancel_timeout=5), head=upgrade(b"/refused")) as here:
        await here.over.wait()
    (closed, closed_at), (refused, refused_at) = heard
    assert closed == refused == "websocket.disconnect"
    assert closed_at == pytest.approx(5)
    assert refused_at - closed_at < 5


async def test_a_drain_closes_a_websocket_with_1001(autojump_clock: MockClock) -> None:
    heard: list[int] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        heard.append((await receive())["code"])

    async with websocket(serve) as here:
        await here.client.open()
        here.state.phase.value = Phase.DRAINING
        for connection in tuple(here.state.open):
            connection.drain(trio.current_time() + 2)
        assert await here.client.ended() == 1001
    assert heard == [1001]
    assert trio.current_time() == 0


async def test_a_message_over_the_limit_closes_with_1009(autojump_clock: MockClock) -> None:
    async with websocket(echo, websocket_max_message_size=1000) as here:
        await here.client.open()
        await here.client.text("x" * 1000)
        assert len(await here.client.message()) == 1000
        await here.client.text("x" * 1001)
        assert await here.client.ended() == 1009


async def test_a_compressed_message_over_the_limit_closes_with_1009(autojump_clock: MockClock) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (deflate.compress(bytes(64 * 2**20)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < 2**16
    head = b"\xc2\xfe" + len(bomb).to_bytes(2, "big") + bytes(4)
    async with websocket(echo, websocket_max_message_size=2**20) as here:
        await here.client.open(extensions=[PerMessageDeflate()])
        await here.client.stream.send_all(head + bomb)
        assert await here.client.ended() == 1009


async def test_bytes_that_are_no_frame_close_with_a_protocol_error(autojump_clock: MockClock) -> None:
    async with websocket(echo) as here:
        await here.client.open()
        await here.client.stream.send_all(b"\xff\xff\xff\xff")
        assert await here.client.ended() == 1002
    assert here.records.logged == []


async def test_a_stalled_message_closes_the_websocket_and_silence_does_not(
    autojump_clock: MockClock,
) -> None:
    async with websocket(echo, Limits(body_timeout=30)) as here:
        await here.client.open()
        await trio.sleep(1000)
        await here.client.text("still here")
        assert await here.client.message() == "still here"
        await here.client.send(TextMessage("half", message_finished=False))
        assert await here.client.ended() == 1008
        assert trio.current_time() == pytest.approx(1030)


async def test_a_client_that_reads_nothing_is_ended_at_the_write_timeout(autojump_clock: MockClock) -> None:
    ended: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "read me"})
        here.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        try:
            await send({"type": "websocket.send", "text": "unread" * 100_000})
        except OSError as error:
            ended.append((trio.current_time(), str(error)))

    async with websocket(serve, Limits(write_timeout=30)) as here:
        await here.client.open()
        await here.over.wait()
    assert ended == [(30, "the client has gone, or does not read")]


async def test_pings_are_sent_at_the_configured_interval(autojump_clock: MockClock) -> None:
    async with websocket(echo, Limits(body_timeout=30), websocket_ping_interval=10) as here:
        await here.client.open()
        received = b""
        with trio.move_on_after(35):
            while True:
                received += await here.client.stream.receive_some()
        assert received == b"\x89\x00" * 4


async def test_an_echo_over_http_2(autojump_clock: MockClock) -> None:
    async with h2_connected(echo) as here:
        fields = {":method": "CONNECT", ":protocol": "websocket"}
        stream = await here.client.request(path="/ws", headers=[("sec-websocket-version", "13")], end=False, **fields)
        while not here.client.answers[stream].status:
            assert await here.client.receive()
        assert here.client.answers[stream].status == 200
        await here.client.data(stream, b"\x81\x82\x00\x00\x00\x00hi")
        while not here.client.answers[stream].body:
            assert await here.client.receive()
        assert here.client.answers[stream].body == b"\x81\x02hi"
        await here.client.data(stream, b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        reply = await here.client.answer(stream)
        assert (reply.body, reply.ended) == (b"\x81\x02hi\x88\x02\x03\xe8", True)
    assert here.records.logged == []


async def test_a_malformed_handshake_over_http_2_is_refused(autojump_clock: MockClock) -> None:
    async with h2_connected(echo) as here:
        fields = {":method": "CONNECT", ":protocol": "websocket"}
        stream = await here.client.request(headers=[("sec-websocket-protocol", b"\xff")], end=False, **fields)
        assert (await here.client.answer(stream)).status == 400
    assert [record.status for record in here.records.requests] == [400]
