"""HTTP/2 input that ends a stock worker or uses up its memory, on real sockets, under both launchers.

Each input ends at most its own connection. After each, a second client is served.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h2.errors
import h2.settings
import pytest
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from quart import request

from tests.support.logs.records import Records
from tests.support.server.h2_client import H2Client, h2_client
from tests.support.server.serving import serving
from umbel.gateway.app import Umbel

Codes = h2.errors.ErrorCodes

PROMISE_S = 1.0
"""Seconds in which a second client is served; a test waits ten times as long."""


@dataclass
class Server:
    port: int
    records: Records
    started: list[str]


@asynccontextmanager
async def server(stock: bool, **settings: Any) -> AsyncIterator[Server]:
    """Serve an Umbel with a few routes. At the end a second client must be served, and no request be in flight."""
    records, started = Records(), []
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/hang")
    async def hang() -> str:
        started.append("hang")
        await trio.sleep_forever()
        raise AssertionError

    @app.post("/upload")
    async def upload() -> str:
        return str(len(await request.get_data()))

    @app.get("/large")
    async def large() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield bytes(64 * 1024)

        return parts(), {"content-type": "application/octet-stream"}

    async with serving(app, stock=stock, graceful_timeout=0.5, **settings) as port:
        yield Server(port, records, started)
        with trio.fail_after(10 * PROMISE_S):
            async with h2_client(port) as second:
                assert (await second.fetch(path="/hello")).body == b"hello"
            await until(lambda: not app.statistics().requests_in_flight)
    assert [note for note in records.logged if note.error is not None] == []


both = pytest.mark.parametrize("stock", [False, True], ids=["umbel serve", "stock hypercorn"])


@both
async def test_data_after_an_early_response_ends_at_most_its_connection(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        stream = await client.request("POST", "/nowhere", end=False)
        reply = await client.answer(stream)
        assert (reply.status, reply.ended) == (404, True)
        await client.frames(DataFrame(stream, data=b"late"), DataFrame(stream, data=b"later", flags=["END_STREAM"]))
        assert (await client.fetch(path="/hello")).body == b"hello"


@both
@pytest.mark.parametrize(
    "pseudo",
    [
        {":method": "CONNECT", ":path": None, ":scheme": None},
        {":path": b"/\xff"},
        {":method": b"\xff"},
    ],
    ids=["CONNECT without a path", "0xff in the path", "0xff in the method"],
)
async def test_a_head_that_ended_a_stock_worker_is_refused_with_a_record(stock: bool, pseudo: Any) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        reply = await client.fetch(**pseudo)
        assert (reply.status in (400, 501), reply["content-type"]) == (True, "application/problem+json")
        assert (await client.fetch(path="/hello")).body == b"hello"
        refused = [record for record in here.records.requests if record.status == reply.status]
        assert [bool(record.detail) for record in refused] == [True]


@both
async def test_non_ascii_bytes_of_a_query_are_read_as_percent_encoded(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        reply = await client.fetch(path=b"/hello?\xff")
        assert (reply.status, reply.body) == (200, b"hello")


def frames_of(kind: str) -> list[Any]:
    """Send a flood of frames, a few per write."""
    return {
        "PRIORITY": lambda: [PriorityFrame(2 * n + 1, depends_on=0, stream_weight=1) for n in range(2000)],
        "PING": lambda: [PingFrame(opaque_data=b"8 bytes.")] * 20_000,
        "SETTINGS": lambda: [SettingsFrame(settings={4: 65535})] * 20_000,
        "WINDOW_UPDATE": lambda: [WindowUpdateFrame(0, window_increment=1)] * 20_000,
        "empty DATA": lambda: [DataFrame(1)] * 20_000,
        "padding": lambda: [DataFrame(1, pad_length=1, flags=["PADDED"])] * 20_000,
        "vain DATA": lambda: [DataFrame(1, data=b"x")] * 20_000,
    }[kind]()


async def flood(client: H2Client, frames: list[Any]) -> None:
    """Send until the server closes the connection."""
    data = b"".join(frame.serialize() for frame in frames)
    with suppress(trio.BrokenResourceError):
        await client.stream.send_all(data)


async def ended_by_flood(client: H2Client, frames: list[Any], *codes: Codes) -> None:
    client.mute = True
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, client, frames)
            await client.ended()
            nursery.cancel_scope.cancel()
    assert client.goaway[0] in (codes or [Codes.ENHANCE_YOUR_CALM])


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110  # there is no event of it
        await trio.sleep(0.001)


@both
@pytest.mark.parametrize(
    "kind", ["PRIORITY", "PING", "SETTINGS", "WINDOW_UPDATE", "empty DATA", "padding", "vain DATA"]
)
async def test_a_flood_of_cheap_frames_ends_its_connection(stock: bool, kind: str) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        if kind in ("empty DATA", "padding"):
            await client.request("POST", "/upload", end=False)
        elif kind == "vain DATA":
            await client.answer(await client.request("POST", "/nowhere", end=False))
        frames = frames_of(kind)
        tracemalloc.start()
        try:
            await ended_by_flood(client, frames)
            # This process also holds the client's copy of the bytes that it sends.
            assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
        finally:
            tracemalloc.stop()


@both
async def test_a_rapid_reset_ends_its_connection_within_200_resets(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        block = b"\x82\x04\x05/hang\x86\x01\x06a.test"  # Literals, so that no head needs the table.
        frames: list[Any] = []
        for number in range(10_000):
            stream = 2 * number + 1
            frames.append(HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"]))
            frames.append(RstStreamFrame(stream, error_code=Codes.CANCEL))
        await ended_by_flood(client, frames)
        assert len(here.started) <= 200


@both
async def test_resetting_a_hundred_streams_at_once_is_allowed(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        streams = [await client.request(path="/hang") for _ in range(100)]
        for stream in streams:
            client.h2.reset_stream(stream, Codes.CANCEL)
        await client.flush()
        assert (await client.fetch(path="/hello")).body == b"hello"
        assert client.goaway == []


@both
@pytest.mark.parametrize("kind", ["CONTINUATION", "CONTINUATION, empty", "HPACK"])
async def test_an_endless_or_huge_head_ends_its_connection(stock: bool, kind: str) -> None:
    bomb = b"\x82\x84\x86\x40\x01x\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 10_000
    frames = {
        "CONTINUATION": [HeadersFrame(1, data=b"\x82" * 16_000), *[ContinuationFrame(1, data=b"\x82" * 16_000)] * 200],
        "CONTINUATION, empty": [HeadersFrame(1, data=b"\x82"), *[ContinuationFrame(1)] * 10_000],
        "HPACK": [HeadersFrame(1, data=bomb, flags=["END_HEADERS"])],
    }[kind]
    async with server(stock) as here, h2_client(here.port) as client:
        # The library has a limit of CONTINUATION frames too, and reports a protocol error.
        await ended_by_flood(client, frames, Codes.ENHANCE_YOUR_CALM, Codes.PROTOCOL_ERROR)


@both
async def test_90_responses_behind_a_closed_window_hold_little_memory(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port, window=0) as client:
        tracemalloc.start()
        try:
            for _ in range(90):
                await client.request(path="/large")
            while any(not answer.status for answer in client.answers.values()):
                assert await client.receive()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
        finally:
            tracemalloc.stop()
        assert sum(len(answer.body) for answer in client.answers.values()) == 0


@both
async def test_a_reset_stream_cancels_its_request_at_once(stock: bool) -> None:
    async with server(stock) as here, h2_client(here.port) as client:
        stream = await client.request(path="/hang")
        await until(lambda: bool(here.started))
        client.h2.reset_stream(stream, Codes.CANCEL)
        began = trio.current_time()
        await client.flush()
        await until(lambda: bool(here.records.requests))
        assert trio.current_time() - began < 0.1 * 10
        assert (here.records.requests[0].status, here.records.requests[0].kind) == (499, "client-gone")


@both
async def test_an_upgrade_to_h2c_is_ignored(stock: bool) -> None:
    async with server(stock) as here, await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
        await stream.send_all(
            b"GET /hello HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: \xffodd\r\n\r\n"
        )
        received = b""
        while data := await stream.receive_some():
            received += data
        assert received.startswith(b"HTTP/1.1 200 ")


@both
async def test_bytes_that_are_not_http_2_end_their_connection(stock: bool) -> None:
    async with server(stock) as here:
        for rest in (b"\xff" * 100, b"\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff", b"\0\0\4\x08\0\0\0\0\0\0\0\0\0"):
            async with h2_client(here.port) as client:
                await client.stream.send_all(rest)
                with trio.fail_after(10):
                    await client.ended()
                assert client.goaway
