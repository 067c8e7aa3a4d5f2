"""An HTTP/2 connection and a WebSocket, cancelled at every checkpoint in turn: nothing of them is left."""

from __future__ import annotations

from typing import Any

import trio
from hypercorn.config import Config
from trio.testing import memory_stream_pair

from tests.support.checkpoints import for_every_checkpoint
from tests.support.h2client import H2Client
from tests.support.h2serving import PEER, App, answer, read_all
from tests.support.http1 import served
from tests.support.wsclient import upgrade
from umbel.server.http2.connection import Http2
from umbel.server.service import Service

MockClock = trio.testing.MockClock


async def test_http_2(autojump_clock: MockClock) -> None:
    running: set[object] = set()
    services: list[Service] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        running.add(key := object())
        try:
            await answer(send, await read_all(receive) + bytes(70_000))
        finally:
            running.discard(key)

    async def operation() -> None:
        services.append(Service(App(serve), Config()))
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Http2(services[-1], ours, PEER).run, b"")
            client = H2Client(theirs)
            await client.begin()
            upload = await client.request("POST", "/upload", end=False)
            left = await client.request("POST", "/left", end=False)
            await client.data(upload, b"body", end=True)
            client.h2.reset_stream(left)
            assert len((await client.answer(upload)).body) == 70_004
            await theirs.aclose()

    def check() -> None:
        assert not running
        assert all(service.in_flight == 0 for service in services)
        assert not any(service.open for service in services)

    assert await for_every_checkpoint(operation, check) > 10


async def test_a_websocket(autojump_clock: MockClock) -> None:
    running: set[object] = set()
    services: list[Service] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        running.add(key := object())
        try:
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})
            await receive()
        finally:
            running.discard(key)

    async def operation() -> None:
        async with served(App(serve)) as server, server.connected() as client:
            services.append(server.service)
            await client.stream.send_all(upgrade() + b"\x81\x82\x00\x00\x00\x00hi")
            received = b""
            while not received.endswith(b"\x81\x02hi"):
                received += await client.stream.receive_some()
            await client.stream.send_all(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
            await client.stream.receive_some()

    def check() -> None:
        assert not running
        assert not any(service.open for service in services)

    assert await for_every_checkpoint(operation, check) > 10


async def test_a_websocket_over_http_2(autojump_clock: MockClock) -> None:
    running: set[object] = set()
    services: list[Service] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        running.add(key := object())
        try:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": (await receive())["text"]})
            await send({"type": "websocket.close"})
            await receive()
        finally:
            running.discard(key)

    async def operation() -> None:
        services.append(Service(App(serve), Config()))
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Http2(services[-1], ours, PEER).run, b"")
            client = H2Client(theirs)
            await client.begin()
            fields = {":method": "CONNECT", ":protocol": "websocket"}
            opened = await client.request(headers=[("sec-websocket-version", "13")], end=False, **fields)
            await client.data(opened, b"\x81\x82\x00\x00\x00\x00hi")
            while not client.answers[opened].body.endswith(b"\x03\xe8"):
                assert await client.receive()
            await client.data(opened, b"\x88\x82\x00\x00\x00\x00\x03\xe8")
            assert (await client.answer(opened)).ended
            await theirs.aclose()

    def check() -> None:
        assert not running
        assert all(service.in_flight == 0 for service in services)
        assert not any(service.open for service in services)

    assert await for_every_checkpoint(operation, check) > 10
