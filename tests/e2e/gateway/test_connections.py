"""Connections of clients over real sockets: keep-alive, closing, timeouts, and shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import trio
from quart import Response

from tests.support.logs.records import Records
from tests.support.server.serving import connected, fetch, serving
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel

STOCK = pytest.mark.parametrize("stock", [True, False], ids=["stock hypercorn", "our serve"])


def hello_app(**server: object) -> tuple[Umbel, Records]:
    records = Records()
    config = Config.model_validate({"server": server})
    app = Umbel(__name__, config, recorder=records)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    return app, records


@STOCK
async def test_connection_close_always_closes_the_connection(stock: bool) -> None:
    app, records = hello_app()
    async with serving(app, stock=stock) as port:
        for _ in range(100):
            async with connected(port) as client:
                reply = await client.request("GET", "/hello", [("connection", "close")])
                assert (reply.status, reply.body) == (200, b"hello")
                with trio.fail_after(2):
                    assert await client.closed_by_server()
    assert [record.status for record in records.requests] == [200] * 100


@STOCK
async def test_an_idle_connection_is_closed_after_keep_alive_timeout(stock: bool) -> None:
    app, _ = hello_app()
    async with serving(app, stock=stock, keep_alive_timeout=0.2) as port, connected(port) as client:
        for _ in range(3):
            assert (await client.request("GET", "/hello")).status == 200
        began = trio.current_time()
        with trio.fail_after(2):
            assert await client.closed_by_server()
        assert trio.current_time() - began >= 0.15


@STOCK
async def test_idle_connections_do_not_delay_a_shutdown(stock: bool) -> None:
    app, _ = hello_app()
    async with AsyncExitStack() as clients:
        with trio.fail_after(3):
            async with serving(app, stock=stock, keep_alive_timeout=60, graceful_timeout=30) as port:
                for _ in range(3):
                    client = await clients.enter_async_context(connected(port))
                    assert (await client.request("GET", "/hello")).body == b"hello"


@STOCK
async def test_many_requests_share_one_connection_and_each_is_recorded_once(stock: bool) -> None:
    app, records = hello_app()
    async with serving(app, stock=stock) as port, connected(port) as client:
        ids = {(await client.request("GET", "/hello"))["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
    assert {record.request.request_id for record in records.requests} == ids


async def test_no_response_names_the_server_or_a_version() -> None:
    app, _ = hello_app()
    async with serving(app) as port:
        for target in ("/hello", "/nowhere"):
            reply = await fetch(port, "GET", target)
            assert not reply.all("server")
            assert "date" in dict(reply.headers)


async def test_two_pipelined_requests_are_answered_in_order() -> None:
    app, _ = hello_app()

    @app.get("/number/<int:n>")
    async def number(n: int) -> str:
        return f"number {n}"

    async with serving(app) as port, connected(port) as client:
        await client.stream.send_all(
            b"GET /number/1 HTTP/1.1\r\nhost: x\r\n\r\nGET /number/2 HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        assert (await client.reply()).body == b"number 1"
        assert (await client.reply()).body == b"number 2"


class Stuck(httpx.AsyncBaseTransport):
    """An upstream that never responds; ``ended`` is set when its call ends."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.ended = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()


def stuck_app(upstream: httpx.AsyncBaseTransport, **route: object) -> tuple[Umbel, Records]:
    records = Records()
    config = Config.model_validate(
        {
            "upstreams": {"slow": {"urls": ["http://127.0.0.1:1"]}},
            "routes": [{"path": "/slow", "calls": {"slow": {"upstream": "slow", "path": "/"}}, **route}],
        }
    )
    return Umbel(__name__, config, transports={"slow": upstream}, recorder=records), records


@STOCK
async def test_a_client_that_leaves_during_calls_ends_the_calls_with_a_499(stock: bool) -> None:
    upstream = Stuck()
    app, records = stuck_app(upstream)
    async with serving(app, stock=stock) as port:
        async with connected(port) as client:
            await client.send("GET", "/slow")
            await upstream.asked.wait()
        with trio.fail_after(2):
            await upstream.ended.wait()
    (record,) = records.requests
    assert (record.status, record.kind, record.bytes_sent) == (499, Kind.CLIENT_GONE, 0)
    assert app.statistics().requests_in_flight == 0


async def test_a_client_that_leaves_within_its_body_is_recorded_as_499() -> None:
    upstream = Stuck()
    app, records = stuck_app(upstream)
    seen = trio.Event()

    @app.post("/upload")
    async def upload() -> str:
        from quart import request

        seen.set()
        await request.get_data()
        return "unreachable"

    async with serving(app) as port, connected(port) as client:
        await client.stream.send_all(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        await seen.wait()
    (record,) = records.requests
    assert (record.status, record.kind, record.request.route) == (499, Kind.CLIENT_GONE, "/upload")


async def test_a_client_that_leaves_after_its_response_is_recorded_as_200() -> None:
    app, records = hello_app()
    async with serving(app) as port:
        for _ in range(10):
            await fetch(port, "GET", "/hello")
    assert [record.status for record in records.requests] == [200] * 10
    assert all(record.kind is None for record in records.requests)


@STOCK
async def test_a_client_that_stops_reading_is_cut_off_after_write_timeout(stock: bool) -> None:
    app, records = hello_app(write_timeout="300ms")
    gone = trio.Event()

    @app.get("/flood")
    async def flood() -> Response:
        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                gone.set()

        response = Response(lines())
        response.timeout = None
        return response

    async with serving(app, stock=stock) as port, connected(port) as client:
        await client.send("GET", "/flood")
        with trio.fail_after(5):
            await gone.wait()
            # The server serves a second client meanwhile.
            assert (await fetch(port, "GET", "/hello")).body == b"hello"
            while app.statistics().requests_in_flight:
                await trio.testing.wait_all_tasks_blocked(0.01)
    flood_record = next(record for record in records.requests if record.request.route == "/flood")
    assert (flood_record.status, flood_record.kind) == (200, Kind.CLIENT_GONE)


async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    app, records = hello_app(write_timeout="500ms")
    size = 8 * 2**20

    @app.get("/large")
    async def large() -> bytes:
        return b"x" * size

    async with serving(app) as port, connected(port) as client:
        await client.send("GET", "/large")
        received = 0
        began = trio.current_time()
        while received < size:
            received += len(await client.stream.receive_some(512 * 1024))
            await trio.sleep(0.06)
        assert trio.current_time() - began > 0.5
    assert records.requests[0].kind is None


async def test_a_client_that_does_not_read_does_not_delay_a_shutdown() -> None:
    app, _ = hello_app(write_timeout="300ms")

    @app.get("/large")
    async def large() -> bytes:
        return b"x" * 64 * 2**20

    with trio.fail_after(5):
        async with serving(app, graceful_timeout=0.1) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            await stream.receive_some(1)
    await stream.aclose()


async def test_a_request_in_flight_after_graceful_timeout_gets_503() -> None:
    upstream = Stuck()
    app, records = stuck_app(upstream, deadline="1h")
    with trio.fail_after(5):
        async with serving(app, graceful_timeout=0.1) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            await upstream.asked.wait()
        received = b"".join([part async for part in stream])
    await stream.aclose()
    assert received.startswith(b"HTTP/1.1 503 ")
    (record,) = records.requests
    assert (record.status, record.kind) == (503, Kind.CANCELLED)
    assert upstream.ended.is_set()
