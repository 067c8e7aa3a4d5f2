"""Cancels of a server's connection at each step of its tasks: no request, connection or descriptor is left."""

from __future__ import annotations

from typing import Any

import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.server.http1 import DRIVERS, POST, App, answer, served
from tests.unit.server.http1.test_streams import UPGRADE
from umbel.core.inbound import InboundApplication
from umbel.server.limits.server_limits import Limits
from umbel.server.state import ServerState


async def echoes(scope: Any, receive: Any, send: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.001)
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
    await answer(send, body * 1000)


class Streams(InboundApplication):
    """An application that passes bodies on, takes upgrades, and makes each request a stream in its middle."""

    async def handle(self, request: Any) -> None:
        drained = trio.Event()
        request.on_drain(drained.set)
        if request.websocket:
            stream = await request.take(101, [(b"upgrade", b"websocket")])
            while data := await stream.receive_some():
                await stream.send_all(data)
            return
        request.take_any_size()
        await request.start(200, [])
        while data := await request.receive():
            await request.send(data)
            assert request.became_stream()
        await request.finish()

    def error_response_fields(self, head: Any, fields: Any) -> Any:
        return fields


async def test_streams_cancelled_at_any_step_leave_nothing(autojump_clock: trio.testing.MockClock) -> None:
    states: list[ServerState] = []

    async def converse() -> None:
        async with served(Streams(), limits=Limits(max_uploads=1)) as server:
            states.append(server.state)
            async with server.connected() as client, server.connected() as second, server.connected() as tunnel:
                await tunnel.stream.send_all(UPGRADE + b"early")
                for each in (client, second):
                    await each.stream.send_all(POST + b"content-length: 30000\r\n\r\n")
                await trio.sleep(0.01)
                await client.stream.send_all(bytes(20_000))
                await client.stream.receive_some()
                await second.stream.send_all(bytes(30_000))
                await second.stream.receive_some()
                await tunnel.stream.receive_some()
                await client.stream.send_all(bytes(10_000))

    def check() -> None:
        for state in states:
            assert state.in_flight == state.streams == state.uploads.taken == state.uploads.waiting == 0
            assert state.connections.value == 0
            assert not (state.open or state.on_drain)
            assert len(state.reader) == 0
        states.clear()

    assert await for_every_checkpoint(converse, check) > 20


@DRIVERS
async def test_a_server_cancelled_at_any_step_leaves_nothing(
    driver: str, autojump_clock: trio.testing.MockClock
) -> None:
    states: list[ServerState] = []

    async def converse() -> None:
        async with served(App(echoes), driver) as server:
            states.append(server.state)
            async with server.connected() as client:
                await client.stream.send_all(POST + b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n")
                await client.stream.receive_some()
                await client.stream.send_all(bytes(50))
                await trio.sleep(0.01)
                await client.stream.send_all(bytes(50) + POST + b"content-length: 3\r\n\r\n")
                received = 0
                while received < 100_000:
                    received += len(await client.stream.receive_some())

    def check() -> None:
        for state in states:
            assert state.in_flight == 0
            assert state.connections.value == 0
            assert not state.open
            assert len(state.reader) == 0
        states.clear()

    assert await for_every_checkpoint(converse, check) > 20
