"""WebSockets through the gateway: rules for paths, client origin, ends, and one record each."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from quart import abort, websocket
from wsproto.events import AcceptConnection, CloseConnection

from tests.support.server.asgi import living
from tests.support.server.asgi_websocket import converse
from tests.support.server.http1 import served
from tests.support.server.ws_client import WsClient
from tests.unit.gateway.gateways import gateway
from umbel.core.events import RequestEnded, RequestStarted


async def test_a_websocket_has_one_record_with_its_bytes() -> None:
    app, records = gateway()

    @app.websocket("/ws")
    async def talk() -> None:
        await websocket.send("four")
        await websocket.send(b"five5")

    sent = await converse(app)
    assert [message["type"] for message in sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.send",
        "websocket.close",
    ]
    (record,) = records.requests
    assert (record.status, record.kind, record.bytes_sent) == (101, None, 9)
    assert (record.request.method, record.request.path, record.client) == ("GET", "/ws", "192.0.2.1")


@pytest.mark.parametrize("raw", [b"/../ws", b"/%2e%2e/ws", b"/a%2fws", b"/ws%00", b"/ws%zz"])
async def test_the_rules_for_paths_apply_to_websockets(raw: bytes) -> None:
    app, records = gateway()

    @app.websocket("/<path:anything>")
    async def never(anything: str) -> None:
        raise AssertionError

    start, body = await converse(app, raw=raw)
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (400, b"application/problem+json")
    assert b'"status":400' in body["body"]
    (record,) = records.requests
    assert (record.status, record.kind, bool(record.detail)) == (400, "bad-request", True)


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        (b"a_b.example", ["websocket.accept", "websocket.close"]),
        (b"a..example", ["websocket.http.response.start", "websocket.http.response.body"]),
    ],
)
async def test_a_websocket_is_found_by_its_host_and_a_malformed_one_is_refused(host: bytes, sent: list[str]) -> None:
    app, _ = gateway()

    @app.websocket("/ws", host="*.example")
    async def of_host() -> None:
        await websocket.accept()

    @app.websocket("/ws")
    async def never() -> None:
        raise AssertionError

    messages = await converse(app, headers=[(b"host", host)])
    assert [message["type"] for message in messages] == sent


async def test_forwarded_fields_of_an_untrusted_peer_reach_no_websocket() -> None:
    app, _ = gateway()
    seen: list[Any] = []

    @app.websocket("/ws")
    async def look() -> None:
        seen.append(dict(websocket.headers))
        await websocket.accept()

    await converse(app)
    assert "203.0.113.9" not in str(seen)


async def test_a_refused_websocket_is_recorded_with_its_status() -> None:
    app, records = gateway()

    @app.websocket("/refuses")
    async def refuses() -> None:
        abort(403)

    _, body, _ = await converse(app, path="/nowhere")
    assert records.requests[0].request.request_id.encode() in body["body"]
    await converse(app, path="/refuses")
    assert [(record.status, record.request.route) for record in records.requests] == [(404, ""), (403, "/refuses")]


async def test_a_websocket_whose_client_leaves_is_no_failure() -> None:
    app, records = gateway()

    @app.websocket("/ws")
    async def talk() -> None:
        await websocket.send("anybody?")
        raise AssertionError

    assert await converse(app, leaves=True) == []
    assert records.logged == []
    assert [record.kind for record in records.requests] == [None]


@pytest.mark.parametrize(("drains", "reason"), [(False, "client-gone"), (True, "the server is going away")])
async def test_a_websocket_view_is_cancelled_with_the_reason_of_its_end(drains: bool, reason: str) -> None:
    app, _ = gateway()
    reasons: list[str] = []

    @app.websocket("/ws")
    async def wait() -> None:
        await websocket.accept()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(str(error))
            raise

    async with living(app), served(app) as server, server.connected() as raw:
        client = WsClient(raw.stream)
        assert isinstance(await client.open(), AcceptConnection)
        if drains:
            server.state.begin_draining(trio.current_time() + 1)
        else:
            await client.send(CloseConnection(code=1000))
        await client.ended()
    assert len(reasons) == 1
    assert f"'{reason}'" in reasons[0]


async def test_empty_messages_reach_a_view_with_their_type() -> None:
    app, _ = gateway()
    came: list[str | bytes] = []

    @app.websocket("/ws")
    async def listen() -> None:
        came.extend([await websocket.receive(), await websocket.receive()])

    empty = {"type": "websocket.receive", "bytes": None, "text": None}
    await converse(app, {**empty, "bytes": b""}, {**empty, "text": ""})
    assert came == [b"", ""]


async def test_a_websocket_that_crashes_has_one_log_line_and_one_record() -> None:
    app, records = gateway()

    @app.websocket("/ws")
    async def fails() -> None:
        raise ValueError("secret")

    sent = await converse(app)
    assert sent[0]["status"] == 500
    assert "secret" not in str(sent)
    assert [(note.event, str(note.error)) for note in records.logged] == [("app.crashed", "secret")]
    assert [(record.status, record.kind) for record in records.requests] == [(500, "internal")]


async def test_a_websocket_that_crashes_after_its_handshake_is_cut_off_in_its_record() -> None:
    app, records = gateway()

    @app.websocket("/ws/<room>")
    async def fails(room: str) -> None:
        await websocket.accept()
        raise ValueError(room)

    await converse(app, path="/ws/1")
    (record,) = records.requests
    assert (record.status, record.request.route, record.broke_off) == (101, "/ws/<room>", True)
    assert [note.request.route for note in records.logged if note.request is not None] == ["/ws/<room>"]


@pytest.mark.parametrize(("seconds", "events"), [(0.5, [RequestEnded]), (2, [RequestStarted, RequestEnded])])
async def test_a_websocket_that_lasts_has_a_record_of_its_start(
    seconds: float, events: list[type], autojump_clock: object
) -> None:
    app, records = gateway()
    records.lasting_after = 1.0  # type: ignore[attr-defined]  # as a recorder that takes starts has it

    @app.websocket("/ws")
    async def talk() -> None:
        await websocket.accept()
        await trio.sleep(seconds)

    async with living(app):
        await converse(app)
    assert [type(event) for event in records.events] == events
    assert {event.request.route for event in records.events} == {"/ws"}  # type: ignore[union-attr]
    (ended,) = records.requests
    assert (ended.switched_at, ended.ended_at) == (ended.request.started_at, ended.request.started_at + seconds)
