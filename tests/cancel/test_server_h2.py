"""Cancels of an HTTP/2 connection and of a WebSocket at each checkpoint in turn: nothing is left."""

from __future__ import annotations

from typing import Any

import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.server.h2_connections import CancelledServices, answer, read_all
from tests.support.server.http1 import served
from tests.support.server.ws_client import upgrade

MockClock = trio.testing.MockClock


async def test_a_cancelled_http_2_connection_leaves_nothing(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await read_all(receive) + bytes(70_000))

    services = CancelledServices(serve)

    async def operation() -> None:
        async with services.h2_client() as client:
            upload = await client.request("POST", "/upload", end=False)
            left = await client.request("POST", "/left", end=False)
            await client.data(upload, b"body", end=True)
            client.h2.reset_stream(left)
            assert len((await client.answer(upload)).body) == 70_004

    assert await for_every_checkpoint(operation, services.check) > 10


async def test_a_cancelled_websocket_leaves_nothing(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()

    services = CancelledServices(serve)

    async def operation() -> None:
        async with served(services.app) as server, server.connected() as client:
            services.made.append(server.state)
            await client.stream.send_all(upgrade() + b"\x81\x82\x00\x00\x00\x00hi")
            received = b""
            while not received.endswith(b"\x81\x02hi"):
                received += await client.stream.receive_some()
            await client.stream.send_all(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
            await client.stream.receive_some()

    assert await for_every_checkpoint(operation, services.check) > 10


async def test_a_cancelled_websocket_over_http_2_leaves_nothing(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})
        await receive()

    services = CancelledServices(serve)

    async def operation() -> None:
        async with services.h2_client() as client:
            fields = {":method": "CONNECT", ":protocol": "websocket"}
            opened = await client.request(headers=[("sec-websocket-version", "13")], end=False, **fields)
            await client.data(opened, b"\x81\x82\x00\x00\x00\x00hi")
            while not client.answers[opened].body.endswith(b"\x03\xe8"):
                assert await client.receive()
            await client.data(opened, b"\x88\x82\x00\x00\x00\x00\x03\xe8")
            assert (await client.answer(opened)).ended

    assert await for_every_checkpoint(operation, services.check) > 10
