"""The connection pool by itself as a transport of httpx, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.upstream.calls import Caller, url
from tests.support.upstream.raw_server import Peer, answering, open_sockets, raw_server, response
from umbel.core.errors import NotRunningError, UpstreamError
from umbel.upstream import Pool, Transport


async def test_an_httpx_client_reuses_kept_connections() -> None:
    before = open_sockets()
    async with raw_server(answering(response(b"hello", b"Content-Type: text/plain"))) as server:
        async with Pool() as pool, httpx.AsyncClient(transport=pool) as client:
            for _ in range(3):
                got = await client.get(url(server))
                assert (got.status_code, got.text, got.http_version) == (200, "hello", "HTTP/1.1")
            assert len(server.connections) == 1
        await server.all_closed()
    assert open_sockets() == before


async def test_an_httpx_client_may_open_and_close_the_pool() -> None:
    async with raw_server(answering(response(b"ok"))) as server:
        async with httpx.AsyncClient(transport=Pool()) as client:
            assert (await client.get(url(server))).text == "ok"
        await server.all_closed()


async def test_request_and_response_are_streamed_at_the_same_time() -> None:
    """An echo: each piece comes back before the next one is sent, over one connection that is kept."""
    turn = trio.Semaphore(1)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(20):
            await turn.acquire()
            yield b"%d" % number * 1000

    async def echo(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                line = await peer.read_until(b"\r\n")
                chunk = await peer.read_exactly(int(line, 16) + 2)
                await peer.send(line + chunk)
                if line == b"0\r\n":
                    break

    async with raw_server(echo) as server, Pool() as pool, httpx.AsyncClient(transport=pool) as client:
        received = b""
        async with client.stream("POST", url(server), content=pieces()) as got:
            expected = b""
            number = 0
            async for piece in got.aiter_raw():
                received += piece
                while number < 20 and len(received) >= len(expected + b"%d" % number * 1000):
                    expected += b"%d" % number * 1000
                    number += 1
                    turn.release()
        assert received == b"".join(b"%d" % number * 1000 for number in range(20))
        assert (pool.statistics().active, pool.statistics().idle) == (0, 1)


async def test_a_response_closed_early_closes_its_connection() -> None:
    async def endless(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 1000)

    async with raw_server(endless) as server, Pool() as pool, httpx.AsyncClient(transport=pool) as client:
        async with client.stream("GET", url(server)) as got:
            assert got.status_code == 200
        await server.all_closed()
        assert pool.statistics().active == 0


async def test_a_slow_reader_makes_the_upstream_wait() -> None:
    sent = 0

    async def endless(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 100_000)
            sent += 100_000

    async with (
        raw_server(endless) as server,
        Pool() as pool,
        httpx.AsyncClient(transport=pool) as client,
        client.stream("GET", url(server)),
    ):
        with trio.fail_after(10):
            last = -1
            while sent != last:
                last = sent
                await trio.sleep(0.05)
        assert sent < 50 * 2**20


async def deaf(peer: Peer) -> None:
    """Read nothing."""
    await trio.sleep_forever()


async def test_the_timeouts_of_httpx_apply() -> None:
    async with raw_server(deaf) as server, Pool() as pool:
        async with httpx.AsyncClient(transport=pool, timeout=0.05) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(url(server))
            with pytest.raises(httpx.WriteTimeout):
                await client.post(url(server), content=_endless())
        assert pool.statistics().active == 0


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(1_000_000)


async def test_every_connection_may_go_to_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    async with raw_server(answering(response(b"ok")), uds=path) as server:
        async with Pool(uds=path) as pool, httpx.AsyncClient(transport=pool) as client:
            assert (await client.get("http://whatever.example/")).text == "ok"
            assert (await client.get("http://whatever.example/")).text == "ok"
        assert len(server.connections) == 1


async def test_at_its_limit_the_pool_serves_requests_in_turn_and_opens_no_more() -> None:
    most = 0

    async def handler(peer: Peer) -> None:
        nonlocal most
        while await peer.read_head():
            most = max(most, server.open)
            await trio.sleep(0.001)
            await peer.send(response(b"ok"))

    async with raw_server(handler) as server, Pool(max_connections=5) as pool, trio.open_nursery() as nursery:

        async def get() -> None:
            got = await pool.handle_async_request(httpx.Request("GET", url(server)))
            assert await got.aread() == b"ok"

        for _ in range(100):
            nursery.start_soon(get)
    assert most == 5
    slots = pool.statistics().slots
    assert slots is not None
    assert (slots.in_use, slots.waiting) == (0, 0)


async def test_closing_a_client_ends_calls_that_get_a_place_by_the_close() -> None:
    """Otherwise the call would take a kept connection while all are closed, and wait on it for ever."""

    async def handler(peer: Peer) -> None:
        while head := await peer.read_head():
            if head.startswith(b"GET /hang"):
                await trio.sleep_forever()
            await peer.send(response(b"ok"))

    ended: list[Exception] = []

    async def hang(transport: Transport) -> None:
        try:
            await Caller(transport.client).call(b"/hang")
        except (UpstreamError, NotRunningError) as error:
            ended.append(error)

    with trio.fail_after(10):
        async with raw_server(handler) as one, raw_server(handler) as two, trio.open_nursery() as nursery:
            transport = Transport(
                [url(one), url(two)], balance="round_robin", max_concurrency=1, max_queue=5, max_idle=5
            )
            async with transport:
                for _ in range(2):
                    await Caller(transport.client).call()
                assert transport.statistics().pool.idle == 2
                for _ in range(3):
                    nursery.start_soon(hang, transport)
                await wait_all_tasks_blocked()
                assert (transport.statistics().bulkhead.waiting, transport.statistics().pool.active) == (2, 1)
        Caller(transport.client).assert_nothing_left()
    assert len(ended) == 3
