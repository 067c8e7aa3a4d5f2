"""WebSockets on real sockets, under both launchers: input that ends a stock worker, and ordinary use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from quart import websocket
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection

from tests.support.logs.records import Records
from tests.support.server.serving import fetch, serving
from tests.support.server.ws_client import upgrade, ws_client
from umbel.core.events import RequestEnded
from umbel.gateway.app import Umbel


@asynccontextmanager
async def server(stock: bool, **settings: Any) -> AsyncIterator[tuple[int, Records]]:
    """Serve an Umbel with an echo WebSocket. At the end a second client must be served."""
    records = Records()
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.websocket("/ws")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/sleeps")
    async def sleeps() -> None:
        await websocket.accept()
        await trio.sleep_forever()

    @app.websocket("/sends")
    async def sends() -> None:
        while True:
            await websocket.send(bytes(64 * 1024))

    async with serving(app, stock=stock, **settings) as port:
        yield port, records
        with trio.fail_after(10):
            assert (await fetch(port, "GET", "/nowhere")).status == 404
            async with ws_client(port) as second:
                assert isinstance(await second.open(), AcceptConnection)
    assert [note for note in records.logged if note.error is not None] == []


both = pytest.mark.parametrize("stock", [False, True], ids=["umbel serve", "stock hypercorn"])


async def raw(port: int, data: bytes) -> bytes:
    """Send bytes. Return the head of the response and the bytes that came with it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        received = b""
        with trio.fail_after(10):
            while b"\r\n\r\n" not in received and (part := await stream.receive_some()):
                received += part
        return received


async def recorded(records: Records, count: int = 1) -> list[RequestEnded]:
    """Wait for ``count`` records, and return them."""
    with trio.fail_after(10):
        while len(records.requests) < count:  # noqa: ASYNC110  # there is no event of it
            await trio.sleep(0.001)
    return records.requests


@both
@pytest.mark.parametrize("name", [b"Protocol", b"Extensions"])
async def test_a_handshake_with_a_non_ascii_byte_gets_400_and_a_record(stock: bool, name: bytes) -> None:
    async with server(stock) as (port, records):
        answer = await raw(port, upgrade(more=b"Sec-WebSocket-%b: \xff\r\n" % name))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer
        assert [(record.status, bool(record.detail)) for record in await recorded(records)] == [(400, True)]


@both
@pytest.mark.parametrize("more", [b"\x81", b"\x00", b"\xff", b"\x88\x80\x00\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n"])
async def test_bytes_after_an_upgrade_end_at_most_their_connection(stock: bool, more: bytes) -> None:
    async with server(stock) as (port, _), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(upgrade() + more)
        with trio.fail_after(10):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


@both
@pytest.mark.parametrize("raw_path", [b"/../ws", b"/%2e%2e/ws", b"/ws%00", b"/a%2fb", b"ws", b"/\xff"])
async def test_the_rules_for_paths_hold_for_upgrades(stock: bool, raw_path: bytes) -> None:
    async with server(stock) as (port, records):
        assert (await raw(port, upgrade(raw_path))).startswith(b"HTTP/1.1 400 ")
        assert [record.status for record in await recorded(records)] == [400]


@both
async def test_an_echo_leaves_one_record_at_its_end(stock: bool) -> None:
    async with server(stock) as (port, records):
        async with ws_client(port) as client:
            assert isinstance(await client.open(), AcceptConnection)
            for text in ("one", "two", "x" * 100_000):
                await client.text(text)
                assert await client.message() == text
            await client.send(CloseConnection(code=1000))
            await client.ended()
        (record,) = await recorded(records)
        assert (record.status, record.kind, record.request.path) == (101, None, "/ws")
        assert record.bytes_sent == 100_006


@both
async def test_a_path_without_a_websocket_refuses_the_upgrade(stock: bool) -> None:
    async with server(stock) as (port, _), ws_client(port) as client:
        refused = await client.open("/nowhere")
        assert (type(refused), refused.status_code) == (RejectConnection, 404)


@both
async def test_a_client_that_leaves_ends_its_application_at_once(stock: bool) -> None:
    async with server(stock) as (port, records):
        for path in ("/ws", "/sleeps"):
            async with ws_client(port) as client:
                await client.open(path)
        await recorded(records, 2)


async def test_a_client_that_never_reads_is_ended_at_the_write_timeout() -> None:
    records = Records()
    app = Umbel(__name__, recorder=records, static_folder=None)
    app.limits = type(app.limits)(write_timeout=0.2)

    @app.websocket("/sends")
    async def sends() -> None:
        while True:
            await websocket.send(bytes(64 * 1024))

    async with serving(app) as port, ws_client(port) as client:
        await client.stream.send_all(upgrade(b"/sends"))
        await recorded(records)


@both
async def test_a_stopping_server_closes_its_websockets_with_1001(stock: bool) -> None:
    codes: list[int | None] = []

    async def talk(port: int, opened: trio.Event) -> None:
        async with ws_client(port) as client:
            await client.open("/sleeps")
            opened.set()
            codes.append(await client.ended())

    async with trio.open_nursery() as nursery:
        opened = trio.Event()
        async with server(stock, graceful_timeout=20) as (port, _):
            nursery.start_soon(talk, port, opened)
            await opened.wait()
            began = trio.current_time()
    assert codes == [1001]
    assert trio.current_time() - began < 10
