"""Version, Referer and User-Agent in access records, for recorders that take them: however a request ends."""

from __future__ import annotations

import trio
from quart import websocket

from tests.support.logs.records import Records
from tests.support.server.asgi import ask, living
from tests.support.server.h2_client import h2_client
from tests.support.server.raw_client import converse
from tests.support.server.serving import serving
from umbel.config.schema.sections import Config
from umbel.core.http.client_head import ClientHead
from umbel.gateway.app import Umbel

FIELDS = b"Referer: /from?x=1\r\nUser-Agent: agent\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "


class HeadRecords(Records):
    takes_heads = True


def application(records: Records) -> Umbel:
    config = Config.model_validate({"server": {"hosts": ["a", "gateway.test"]}})
    app = Umbel(__name__, config, recorder=records, static_folder=None)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.websocket("/ws")
    async def leave() -> None:
        await websocket.accept()

    return app


async def test_every_request_with_a_head_is_recorded_with_parts_of_it() -> None:
    records = HeadRecords()
    ends = [
        (b"GET /hello HTTP/1.1\r\n", 200, "1.1"),
        (b"GET /hello HTTP/1.0\r\n", 200, "1.0"),
        (b"GET /missing HTTP/1.1\r\n", 404, "1.1"),
        (b"POST /hello HTTP/1.1\r\nContent-Length: 99999999\r\n", 413, "1.1"),
        (b"GET /hello HTTP/1.1\r\nHost: b\r\n", 421, "1.1"),
        (b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"bad\r\n", 400, "1.1"),
        (b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"dGhlIHNhbXBsZSBub25jZQ==\r\n", 101, "1.1"),
    ]
    async with serving(application(records)) as port:
        for start, status, version in ends:
            host = b"" if b"Host" in start else b"Host: a\r\n"
            connection = b"" if b"Connection" in start else b"Connection: close\r\n"
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(start + host + connection + FIELDS + b"\r\n")
                await stream.receive_some()
            with trio.fail_after(10):
                while not records.requests:  # noqa: ASYNC110  # there is no event of it
                    await trio.sleep(0.001)
            [ended] = records.requests
            records.events.clear()
            assert (start, ended.status) == (start, status)
            assert ended.head == ClientHead(version, "/from?x=1", "agent"), start


async def test_of_a_refused_head_the_fields_that_can_be_read_are_recorded() -> None:
    records = HeadRecords()
    async with serving(application(records)) as port:
        await converse(port, b"\x16\x03\x01\r\n\r\n")
        await converse(port, b"GET x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + FIELDS + b"\r\n")
    assert [ended.head for ended in records.requests] == [ClientHead(""), ClientHead("1.1", "/from?x=1", "agent")]


async def test_http2_requests_are_recorded_with_parts_of_their_head() -> None:
    records = HeadRecords()
    fields = [("referer", "/from"), ("user-agent", "agent")]
    async with serving(application(records)) as port, h2_client(port) as client:
        await client.fetch(path="/hello", headers=fields)
        await client.fetch(path="x", headers=fields)
    # The records of two streams may come in either order.
    assert sorted((ended.status, ended.head) for ended in records.requests) == [
        (200, ClientHead("2", "/from", "agent")),
        (400, ClientHead("2", "/from", "agent")),
    ]


async def test_another_asgi_server_gives_the_head_too() -> None:
    records = HeadRecords()
    app = application(records)
    async with living(app):
        await ask(app, target="/hello", headers=[("user-agent", "agent")])
    assert [ended.head for ended in records.requests] == [ClientHead("1.1", "", "agent")]


async def test_a_recorder_that_takes_no_heads_gets_none() -> None:
    records = Records()
    async with serving(application(records)) as port:
        await converse(port, b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + FIELDS + b"\r\n")
        await converse(port, b"GET x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + FIELDS + b"\r\n")
    assert [ended.head for ended in records.requests] == [None, None]
