"""Streamed calls over sockets, plain and with TLS: flow control, and nothing left at any end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.upstream.bad_upstreams import nobody
from tests.support.upstream.raw_server import Handler, Peer, RawServer, open_sockets, raw_server, response
from tests.support.upstream.stream_calls import answer_each_piece, head, opened
from umbel.core.errors import UpstreamError
from umbel.upstream import ConnectionReset, Malformed, Retry, Transport
from umbel.upstream.calls.stream_call import RequestBody

PIECE = b"x" * 65536
MUCH = 1000
"""Number of pieces: more than the socket buffers hold."""
BLOCKED = 0.1
"""Seconds without a step of any task after which the kernel has transferred all bytes."""


@asynccontextmanager
async def upstream(
    handler: Handler, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None, *others: str, **options: object
) -> AsyncIterator[tuple[Transport, RawServer]]:
    """A transport to an upstream; in the end it holds nothing, and no socket is open."""
    before = open_sockets()
    with trio.fail_after(30):
        async with raw_server(handler, tls=tls and tls[0]) as server:
            urls = [*others, f"{'https' if tls else 'http'}://127.0.0.1:{int(server)}"]
            context = tls and tls[1]
            async with Transport(urls, ssl_context=context, **options) as transport:  # type: ignore[arg-type]
                yield transport, server
                statistics = transport.statistics()
                assert (statistics.bulkhead.in_flight, statistics.pool.active) == (0, 0)
                assert {replica.in_flight for replica in statistics.balance.replicas} == {0}
            await server.all_closed()
    assert open_sockets() == before


async def test_a_slow_receiver_makes_the_upstream_wait(tls) -> None:
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(head(MUCH * len(PIECE)))
        for _ in range(MUCH):
            await peer.send(PIECE)
            sent += 1
        await peer.closed()

    async with upstream(handler, tls) as (transport, _):
        call = await opened(transport.client)
        await wait_all_tasks_blocked(BLOCKED)
        stuck_at = sent
        assert stuck_at < MUCH / 2
        await wait_all_tasks_blocked(BLOCKED)
        assert sent == stuck_at
        received = longest = 0
        while data := await call.receive():
            received, longest = received + len(data), max(longest, len(data))
        assert received == MUCH * len(PIECE)
        assert longest <= 256 * 1024


async def test_a_slow_upstream_makes_the_sender_wait(tls) -> None:
    reads = trio.Event()
    sent = 0

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await reads.wait()
        count, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            data = peer.buffer or await peer.stream.receive_some()
            peer.buffer = b""
            count, end = count + data.count(b"x"), end[-10:] + data
        await peer.send(response(b"%d" % count))
        await peer.closed()

    async with upstream(handler, tls) as (transport, _), trio.open_nursery() as nursery:
        body = RequestBody()

        async def send() -> None:
            nonlocal sent
            for _ in range(MUCH):
                await body.send(PIECE)
                sent += 1
            body.send_eof()

        async def slow() -> None:
            await wait_all_tasks_blocked(BLOCKED)
            assert 0 < sent < MUCH / 2
            reads.set()

        nursery.start_soon(send)
        nursery.start_soon(slow)
        call = await opened(transport.client, "POST", body)
        assert sent == MUCH
        assert await call.receive() == b"%d" % (MUCH * len(PIECE))
        assert await call.receive() == b""
        assert transport.statistics().pool.idle == 1


async def test_whole_and_streamed_calls_share_one_connection_in_turn(tls) -> None:
    async def handler(peer: Peer) -> None:
        number = 0
        while (await peer.read_request())[0]:
            await peer.send(response(b"%d" % number) if number % 3 else head(1))
            if number % 3 == 0:
                await peer.send(b"%d" % number)
            number += 1

    async with upstream(handler, tls) as (transport, server), httpx.AsyncClient(transport=transport) as client:
        for number in range(9):
            kind = number % 4
            if kind == 0:
                assert (await client.get("http://any/")).content == b"%d" % number
            elif kind == 1:
                async with client.stream("GET", "http://any/", extensions={"stream": True}) as got:
                    assert await got.aread() == b"%d" % number
            elif kind == 2:
                call = await opened(transport.client)
                assert await call.receive() == b"%d" % number
            else:
                assert (await client.put("http://any/", content=pieces(b"a", b"b"))).content == b"%d" % number
        assert len(server.connections) == 1


async def pieces(*them: bytes) -> AsyncIterator[bytes]:
    for piece in them:
        yield piece


async def test_request_and_response_are_streamed_at_the_same_time(tls) -> None:
    async def handler(peer: Peer) -> None:
        await answer_each_piece(peer)
        await peer.closed()

    async with upstream(handler, tls) as (transport, _):
        body = RequestBody()
        call = await opened(transport.client, "POST", body)
        for piece in (b"one", b"two", b"three"):
            await body.send(piece)
            assert await call.receive() == piece.upper()
        body.send_eof()
        assert await call.receive() == b""
        assert transport.statistics().pool.idle == 1


@pytest.mark.parametrize("sending", [False, True])
async def test_a_reset_within_the_body_is_an_error(sending: bool) -> None:
    async def until_one_more_came(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(6) + b"one")
        if sending:
            await peer.read_until(b"more")
        else:
            await got.wait()
        peer.reset()

    got = trio.Event()
    async with upstream(until_one_more_came) as (transport, _):
        body = RequestBody() if sending else None
        call = await opened(transport.client, "POST" if sending else "GET", body)
        assert await call.receive() == b"one"
        if body is not None:
            await body.send(b"more")
        got.set()
        with pytest.raises(ConnectionReset):
            await call.receive()
        if body is not None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await body.send(b"x")


async def test_an_end_within_the_body_is_an_error(tls) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(6) + b"one")

    async with upstream(handler, tls) as (transport, _):
        call = await opened(transport.client)
        assert await call.receive() == b"one"
        with pytest.raises(Malformed):
            await call.receive()


async def forever(peer: Peer) -> None:
    """Send without end."""
    await peer.read_head()
    await peer.send(head(None))
    while True:
        await peer.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))


@pytest.mark.parametrize("how", ["closed", "cancelled", "left by a client of httpx", "receiving is cancelled"])
async def test_closing_a_streamed_response_early_closes_the_socket(how: str, tls) -> None:
    async with upstream(forever, tls) as (transport, server):
        if how == "left by a client of httpx":
            async with httpx.AsyncClient(transport=transport) as client:
                async with client.stream("GET", "http://any/", extensions={"stream": True}) as got:
                    assert got.status_code == 200
                await server.all_closed()
            return
        call = await opened(transport.client)
        assert await call.receive()
        if how == "closed":
            await call.aclose()
        elif how == "cancelled":
            call.cancel("client-gone")
        else:
            with trio.CancelScope() as scope:
                scope.cancel(reason="a test")
                await call.receive()
        await server.all_closed()
        assert transport.statistics().bulkhead.in_flight == 0


async def test_an_early_response_is_received_while_the_body_is_blocked(tls) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"no", status=b"413 Too Large"))
        await done.wait()

    done = trio.Event()
    async with upstream(handler, tls) as (transport, _), trio.open_nursery() as nursery:
        body = RequestBody()

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await body.send(PIECE)

        nursery.start_soon(send)
        call = await opened(transport.client, "POST", body)
        await wait_all_tasks_blocked(BLOCKED)
        assert (call.status, transport.statistics().pool.active) == (413, 1)
        assert await call.receive() == b"no"
        done.set()
        assert (await call.receive(), transport.statistics().pool.idle) == (b"", 0)


async def test_a_body_is_sent_completely_to_the_replica_that_accepts() -> None:
    bodies: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            bodies.append(request[1])
            await peer.send(response(b"ok"))

    with nobody() as port:
        dead = f"http://127.0.0.1:{port}"
        async with upstream(handler, None, dead, retry=Retry(attempts=2, backoff=0.0), balance="round_robin") as (
            transport,
            _,
        ):
            for _ in range(4):
                body = RequestBody()
                async with trio.open_nursery() as nursery:

                    async def send(body: RequestBody = body) -> None:
                        for piece in (b"one", b"two"):
                            await body.send(piece)
                        body.send_eof()

                    nursery.start_soon(send)
                    call = await opened(transport.client, "POST", body)
                    assert await call.receive() == b"ok"
            assert transport.statistics().retry.retries >= 1
    assert bodies == [b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"] * 4


async def test_many_streams_that_end_in_every_way_leave_nothing(tls) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(head(6) + b"one")
            if len(sockets) % 5 == 0:
                return
            sockets.append(peer.number)
            await peer.send(b"two")

    sockets: list[int] = []
    ends: dict[str, int] = {}

    async def one(number: int, transport: Transport) -> None:
        try:
            with trio.CancelScope() as scope:
                call = await opened(transport.client)
                await call.receive()
                if number % 4 == 0:
                    await call.aclose()
                elif number % 4 == 1:
                    scope.cancel(reason="a test")
                while await call.receive():
                    pass
            how = "cancelled" if scope.cancelled_caught else "over"
        except UpstreamError as error:
            how = error.kind
        ends[how] = ends.get(how, 0) + 1

    policies = {"max_concurrency": 10, "max_queue": 1000}
    async with upstream(handler, tls, **policies) as (transport, _), trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(one, number, transport)
    assert sum(ends.values()) == 300
    assert ends["over"] > 0 < ends["cancelled"]
