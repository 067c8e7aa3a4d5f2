"""WebSocket connections through a proxy route: over HTTP/1.1 and HTTP/2, refused ones, and a drain."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from wsproto.events import AcceptConnection, BytesMessage, RejectConnection

from tests.support.gateway.proxies import proxied, proxy_app
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, serving
from tests.support.server.ws_client import upgrade, ws_client
from tests.support.upstream.raw_server import Peer, answering, field_value, response
from umbel import Umbel
from umbel.core.failure_kinds import Kind


def echo_app() -> Umbel:
    app = Umbel(__name__, static_folder=None)

    @app.websocket("/ws")
    async def echo() -> None:
        from quart import websocket

        await websocket.accept(subprotocol="chat" if "chat" in websocket.requested_subprotocols else None)
        while True:
            await websocket.send(await websocket.receive())

    return app


async def test_messages_pass_in_both_directions() -> None:
    async with serving(echo_app()) as upstream:
        app, records = proxy_app(upstream, websocket=True)
        async with serving(app) as port, ws_client(port) as client:
            accepted = await client.open(subprotocols=["chat"])
            assert isinstance(accepted, AcceptConnection)
            assert accepted.subprotocol == "chat"
            for text in ("hello", "x" * 100_000):
                await client.text(text)
                assert await client.message() == text
            await client.send(BytesMessage(b"\0\xff"))
            assert await client.message() == b"\0\xff"
    (record,) = records.requests
    assert (record.status, record.request.route) == (101, "/<path:rest>")


async def test_the_handshake_and_bytes_right_behind_it_pass_unchanged() -> None:
    heads: list[bytes] = []

    async def upstream(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi"
        )
        await peer.send(await peer.read_exactly(8))
        await peer.closed()

    async with proxied(upstream, websocket=True) as it, await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
        early = b"\x81\x82abcd\x09\x0b"
        await stream.send_all(upgrade(b"/ws?a=1", b"Cookie: a=1\r\n") + early)
        received = b""
        with trio.fail_after(5):
            while not received.endswith(early):
                received += await stream.receive_some()

    head, rest = received.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert field_value(head, "sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert field_value(head.lower(), "upgrade") == "websocket"
    assert rest == b"\x81\x02hi" + early
    assert heads[0].startswith(b"GET /ws?a=1 HTTP/1.1\r\n")
    asked = {name: field_value(heads[0], name) for name in ("upgrade", "cookie", "sec-websocket-key")}
    assert asked == {"upgrade": "websocket", "cookie": "a=1", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}


async def test_a_websocket_over_http2_reaches_an_upstream_of_http1() -> None:
    async with serving(echo_app()) as upstream:
        app, _ = proxy_app(upstream, websocket=True)
        async with serving(app) as port, h2_client(port) as client:
            while not client.settled:
                await client.receive()
            fields = [("sec-websocket-version", "13")]
            stream = await client.request("CONNECT", "/ws", fields, end=False, **{":protocol": "websocket"})
            await client.data(stream, b"\x81\x82abcd\x09\x0b")
            answer = client.answers[stream]
            with trio.fail_after(5):
                while not answer.body:
                    await client.receive()

    assert answer.status == 200
    assert answer.body == b"\x81\x02hi"
    assert not {"upgrade", "connection", "sec-websocket-accept"} & {name for name, _ in answer.headers}


async def test_a_websocket_over_http2_has_a_fallback_and_is_recorded_as_a_get() -> None:
    async def hanging(peer: Peer) -> None:
        await peer.closed()

    async with serving(echo_app()) as second:
        others = {"second": {"urls": [f"http://127.0.0.1:{second}"]}}
        options = {"others": others, "fallback": ["second"], "first_byte": "50ms", "websocket": True}
        async with proxied(hanging, **options) as it, h2_client(it.port) as client:
            while not client.settled:
                await client.receive()
            fields = [("sec-websocket-version", "13")]
            stream = await client.request("CONNECT", "/ws", fields, end=False, **{":protocol": "websocket"})
            with trio.fail_after(5):
                while not client.answers[stream].status:
                    await client.receive()

    assert client.answers[stream].status == 200
    assert [record.request.method for record in it.records.requests] == ["GET"]


@pytest.mark.parametrize("limit", ["max_lifetime", "idle_timeout"])
async def test_a_websocket_that_a_time_limit_ends_is_recorded_as_a_timeout(limit: str) -> None:
    async with serving(echo_app()) as upstream:
        app, records = proxy_app(upstream, websocket=True, **{limit: "50ms"})
        async with serving(app) as port, ws_client(port) as client:
            await client.open()
            with trio.fail_after(5):
                assert await client.ended() is None
    (record,) = records.requests
    assert (record.status, record.kind, record.broke_off) == (101, Kind.TIMEOUT, True)
    assert record.calls[0].failure is not None
    assert record.calls[0].failure.kind is Kind.TIMEOUT


async def test_an_upstream_without_proof_of_the_key_gives_502_over_http2() -> None:
    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await peer.closed()

    async with proxied(upstream, websocket=True) as it, h2_client(it.port) as client:
        while not client.settled:
            await client.receive()
        fields = [("sec-websocket-version", "13")]
        stream = await client.request("CONNECT", "/ws", fields, end=False, **{":protocol": "websocket"})
        answer = await client.answer(stream)

    assert answer.status == 502


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (response(b"\x81\x02hi"), 502, None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 502, None),
        (b"HTTP/1.1 299 Odd\r\ntransfer-encoding: chunked\r\n\r\n", 502, None),
        (response(b"moved", b"location: /b", status=b"302 Found"), 302, b"moved"),
        (response(b"no entry", status=b"403 Forbidden"), 403, b"no entry"),
        (response(b"busy", status=b"503 Service Unavailable"), 503, b"busy"),
    ],
)
async def test_only_a_101_of_the_upstream_becomes_a_success_over_http2(
    answer: bytes, status: int, body: bytes | None
) -> None:
    async with proxied(answering(answer), websocket=True) as it, h2_client(it.port) as client:
        while not client.settled:
            await client.receive()
        fields = [("sec-websocket-version", "13")]
        stream = await client.request("CONNECT", "/ws", fields, end=False, **{":protocol": "websocket"})
        reply = await client.answer(stream)

    assert reply.status == status
    if body is not None:
        assert reply.body == body
        return
    assert dict(reply.headers)["content-type"] == "application/problem+json"
    (record,) = it.records.requests
    assert (record.status, record.calls[0].failure and record.calls[0].failure.kind) == (502, Kind.MALFORMED)


async def test_a_200_stays_a_visible_failure_of_a_handshake_over_http1() -> None:
    async with proxied(answering(response(b"page")), websocket=True) as it, ws_client(it.port) as client:
        refused = await client.open()

    assert isinstance(refused, RejectConnection)
    assert refused.status_code == 200


async def test_a_refusal_of_the_upstream_is_passed_on() -> None:
    answer = response(b"no entry", b"x-own: 1", status=b"403 Forbidden")
    async with proxied(answering(answer), websocket=True) as it, ws_client(it.port) as client:
        refused = await client.open()

    assert isinstance(refused, RejectConnection)
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"), [("https://app.example", 101), ("https://evil.example", 403), (None, 101)]
)
async def test_only_pages_of_allowed_origins_may_connect(origin: str | None, status: int) -> None:
    async with serving(echo_app()) as upstream:
        app, _ = proxy_app(upstream, websocket={"origins": ["https://app.example"]})
        async with serving(app) as port, connected(port) as client:
            line = b"" if origin is None else b"Origin: %b\r\n" % origin.encode()
            await client.stream.send_all(upgrade(b"/ws", line))
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("options", [{}, {"websocket": True}])
async def test_a_malformed_or_unwanted_handshake_never_reaches_the_upstream(options: dict[str, Any]) -> None:
    head = upgrade(b"/ws")
    head = head if not options else head.replace(b"Version: 13", b"Version: 8")
    async with proxied(answering(response(b"")), **options) as it, connected(it.port) as client:
        await client.stream.send_all(head)
        reply = await client.reply()

        assert reply.status == 400
        assert not it.upstream.connections


async def test_a_client_that_leaves_closes_the_upstream_connection() -> None:
    closed = trio.Event()

    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await peer.closed()
        closed.set()

    async with proxied(upstream, websocket=True) as it:
        async with connected(it.port) as client:
            await client.stream.send_all(upgrade(b"/ws"))
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        with trio.fail_after(5):
            await closed.wait()


async def test_a_drain_closes_each_websocket_with_1012_between_two_frames() -> None:
    async with serving(echo_app()) as upstream:
        app, records = proxy_app(upstream, websocket=True, server={"drain_idle": "50ms"})
        async with trio.open_nursery() as nursery:
            codes: list[int | None] = []
            echoed: list[Any] = []
            opened = trio.Event()

            async def connect(port: int) -> None:
                async with ws_client(port) as client:
                    await client.open()
                    await client.text("x" * 200_000)
                    echoed.append(await client.message())
                    if len(echoed) == 20:
                        opened.set()
                    codes.append(await client.ended())

            async with serving(app, graceful_timeout=5.0) as port:
                for _ in range(20):
                    nursery.start_soon(connect, port)
                with trio.fail_after(10):
                    await opened.wait()

    assert codes == [1012] * 20
    assert echoed == ["x" * 200_000] * 20
    assert len(records.requests) == 20
