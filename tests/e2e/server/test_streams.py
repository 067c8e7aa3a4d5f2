"""Streams and passed-on bodies over TCP: events that are not held back, clients that leave, and the shutdown."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from hypercorn.config import Config

from tests.support.server.h2_client import h2_client
from tests.support.server.native import Native, respond
from tests.support.server.serving import RawClient, connected
from tests.unit.server.http1.test_streams import SWITCHED, UPGRADE
from umbel.core.inbound import InboundRequest
from umbel.server import serve
from umbel.server.limits.server_limits import Limits
from umbel.server.state import ServerState

EVENTS = 20


class Streams(Native):
    """/events: server-sent events; /ws: a tunnel that ends with a drain; else the size of the body is responded."""

    def __init__(self) -> None:
        super().__init__(self.serve, any_size=True)
        self.gone = trio.Event()
        self.largest = 0

    async def serve(self, request: InboundRequest) -> None:
        if request.target == b"/events":
            await self._send_events(request)
        elif request.websocket:
            await self._tunnel(request)
        else:
            request.take_any_size()
            size = 0
            while data := await request.receive():
                size += len(data)
                self.largest = max(self.largest, len(data))
            await respond(request, b"%d" % size)

    async def _send_events(self, request: InboundRequest) -> None:
        assert request.became_stream()
        request.on_gone(self.gone.set)
        await request.start(200, [(b"content-type", b"text/event-stream")])
        await request.send(b"")
        for number in range(EVENTS):
            await request.send(b"data: %d\n\n" % number)
        await self.gone.wait()

    async def _tunnel(self, request: InboundRequest) -> None:
        drains = trio.Event()
        request.on_drain(drains.set)
        request.on_gone(self.gone.set)
        stream = await request.take(101 if request.version == "1.1" else 200, SWITCHED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_at, drains, stream)
            while data := await stream.receive_some():
                await stream.send_all(data)
            nursery.cancel_scope.cancel()
        self.gone.set()

    async def _close_at(self, drains: trio.Event, stream: Any) -> None:
        await drains.wait()
        await stream.send_all(b"closes")
        await stream.send_eof()


@pytest.fixture
async def running(nursery: trio.Nursery) -> Any:
    """A server of ``Streams``: the application, the port, the state, and the event that stops it."""
    app, stop, states = Streams(), trio.Event(), list[ServerState]()
    config = Config.from_mapping(bind=["127.0.0.1:0"], graceful_timeout=2.0)
    config.alpn_protocols = ["h2", "http/1.1"]

    async def run(task_status: Any) -> None:
        limits = Limits(max_body=1000, drain_idle=0.1)
        trigger = stop.wait
        await serve(
            app, config, limits=limits, shutdown_trigger=trigger, on_state=states.append, task_status=task_status
        )

    (address,) = await nursery.start(run)
    yield app, int(address.rpartition(":")[2]), states[0], stop
    stop.set()


async def test_each_event_reaches_the_client_before_the_next_one_is_made(running: Any) -> None:
    app, port, state, _ = running
    received = b""
    with trio.fail_after(5):
        async with connected(port) as client:
            await client.stream.send_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n")
            while received.count(b"data: ") < EVENTS:
                received += await client.stream.receive_some()
            assert (state.in_flight, state.streams) == (0, 1)
        await app.gone.wait()
        await state.connections.wait_value(0)
        assert state.streams == 0


@pytest.mark.parametrize("protocol", ["1.1", "2"])
async def test_a_large_upload_is_passed_on_in_parts_of_64_kib(protocol: str, running: Any) -> None:
    app, port, _, _ = running
    size = 5_000_000
    with trio.fail_after(20):
        if protocol == "2":
            async with h2_client(port) as client:
                stream = await client.request("POST", headers=[("content-length", str(size))], end=False)
                left = size
                while left:
                    room = client.h2.local_flow_control_window(stream)
                    if part := min(room, client.h2.max_outbound_frame_size, left):
                        left -= part
                        await client.data(stream, bytes(part), end=not left)
                    else:
                        await client.receive()
                assert (await client.answer(stream)).body == b"%d" % size
        else:
            async with connected(port) as client_1:
                await client_1.stream.send_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
                await client_1.stream.send_all(bytes(size))
                assert (await client_1.reply()).body == b"%d" % size
    assert 0 < app.largest <= 64 * 1024


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_tunnel_ends_with_its_client(how: str, running: Any) -> None:
    app, port, state, _ = running
    with trio.fail_after(5):
        async with connected(port) as client:
            await _open(client)
            if how == "rst":
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await app.gone.wait()
        await state.connections.wait_value(0)
        assert state.streams == 0


async def test_a_drain_lets_tunnels_end_in_order(running: Any) -> None:
    _, port, state, stop = running
    with trio.fail_after(5):
        async with connected(port) as client:
            await _open(client)
            assert state.streams == 1
            stop.set()
            received = b""
            while data := await client.stream.receive_some():
                received += data
            assert received == b"closes"
        await state.connections.wait_value(0)


async def test_a_tunnel_that_does_not_end_is_cut_at_the_end_of_the_grace_period(running: Any) -> None:
    app, port, state, stop = running

    async def ignore(drains: trio.Event, stream: Any) -> None:
        await trio.sleep_forever()

    app._close_at = ignore
    with trio.fail_after(10):
        async with connected(port) as client:
            await _open(client)
            stop.set()
            assert await client.closed_by_server()
        await state.connections.wait_value(0)
    assert (state.streams, state.on_drain) == (0, {})


async def _open(client: RawClient) -> None:
    """Open a tunnel, and send and receive the first bytes."""
    await client.stream.send_all(UPGRADE + b"hello")
    received = b""
    while not received.endswith(b"\r\n\r\nhello"):
        received += await client.stream.receive_some()
