"""Upstreams that send a byte at a time, over sockets and in virtual time: each wait for them is limited."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.support.upstream.bad_upstreams import CHUNKED, HEAD
from tests.support.upstream.calls import calling, url
from tests.support.upstream.raw_server import Handler, Peer, raw_server, response, silent
from umbel.core.failure_kinds import Kind
from umbel.upstream import CallTimedOut, HealthRules, Transport

MockClock = trio.testing.MockClock
DEADLINE = 5.0


@pytest.fixture
def jumping(mock_clock: MockClock) -> MockClock:
    """A clock that jumps once nothing has happened for a while: all ends of the sockets are in this very loop."""
    mock_clock.autojump_threshold = 0.005
    return mock_clock


def dripping(*pieces: bytes, then: Callable[[], Iterable[bytes]] = tuple, read: bool = True) -> Handler:
    """Answer with ``pieces`` at once, then with those of ``then``, one each 0.9 s."""

    async def handler(peer: Peer) -> None:
        if read:
            await peer.read_head()
        for piece in pieces:
            await peer.send(piece)
        for piece in then():
            await trio.sleep(0.9)
            await peer.send(piece)
        await peer.closed()

    return handler


def single(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


async def deaf(peer: Peer) -> None:
    """Reads a small part of the request at intervals."""
    while True:
        await trio.sleep(0.9)
        await peer.stream.receive_some(10_000)


DRIPS: dict[str, Callable[[], Handler]] = {
    "silence": lambda: silent,
    "head": lambda: dripping(then=lambda: single(HEAD + b"X: " + b"y" * 1000)),
    "interim responses": lambda: dripping(then=lambda: repeat(b"HTTP/1.1 102 Processing\r\n\r\n")),
    "interim head": lambda: dripping(then=lambda: single(b"HTTP/1.1 102 Processing\r\nX: " + b"y" * 1000)),
    "body": lambda: dripping(HEAD + b"Content-Length: 100000\r\n\r\n", then=lambda: repeat(b"x")),
    "body until the end": lambda: dripping(HEAD + b"\r\n", then=lambda: repeat(b"x")),
    "chunks": lambda: dripping(CHUNKED, then=lambda: repeat(b"1\r\nx\r\n")),
    "chunk in bytes": lambda: dripping(CHUNKED, then=lambda: chain(single(b"ffff\r\n"), repeat(b"x"))),
    "chunk extension": lambda: dripping(CHUNKED, b"1;", then=lambda: repeat(b"e")),
    "trailers": lambda: dripping(CHUNKED, b"0\r\n", then=lambda: repeat(b"x: y\r\n")),
    "trailer": lambda: dripping(CHUNKED, b"0\r\nx: ", then=lambda: repeat(b"y")),
}
STACKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retry": {"retry": {}},
    "hedge": {"hedge": {"after": "50ms"}, "retry": {}},
    "coalesce": {"coalesce": True},
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_a_call_ends_at_its_deadline_however_its_upstream_drips(
    drip: Callable[[], Handler], stack: dict[str, Any], jumping: MockClock
) -> None:
    handler = drip()
    async with raw_server(handler) as one, raw_server(handler) as two, calling(url(one), url(two), **stack) as caller:
        began = trio.current_time()
        with trio.move_on_after(DEADLINE) as scope:
            await caller.call(budget=DEADLINE)
        assert scope.cancelled_caught
        assert trio.current_time() - began == pytest.approx(DEADLINE, abs=0.1)
        await one.all_closed()
        await two.all_closed()
        caller.assert_nothing_left()


async def test_a_call_ends_at_its_deadline_however_slowly_its_upstream_reads(jumping: MockClock) -> None:
    async with raw_server(deaf) as server, calling(url(server)) as caller:
        with trio.move_on_after(DEADLINE) as scope:
            await caller.call(budget=DEADLINE, method="POST", content=bytes(10**8))
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(DEADLINE, abs=0.1)


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_timeout_of_a_transport_ends_a_response_that_drips(
    drip: Callable[[], Handler], stream: bool, jumping: MockClock
) -> None:
    async with raw_server(drip()) as server, Transport([url(server)], timeout=DEADLINE) as transport:
        with pytest.raises(CallTimedOut):
            request = httpx.Request("GET", "http://u/", extensions={"stream": True} if stream else {})
            await (await transport.handle_async_request(request)).aread()
        assert trio.current_time() == pytest.approx(DEADLINE, abs=0.1)
        assert transport.statistics().pool.active == 0


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_httpxs_read_timeout_limits_each_read_and_the_transports_timeout_the_call(
    drip: Callable[[], Handler], jumping: MockClock
) -> None:
    async with raw_server(drip()) as server:
        transport = Transport([url(server)], timeout=DEADLINE)
        async with httpx.AsyncClient(transport=transport, timeout=2) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.get("http://u/")
        assert trio.current_time() <= DEADLINE + 0.1


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_a_health_check_ends_after_its_interval_however_its_replica_drips(
    drip: Callable[[], Handler], jumping: MockClock
) -> None:
    rules = HealthRules(every=2.0, unhealthy=2)
    async with raw_server(drip()) as server, Transport([url(server)], health=rules) as transport:
        await trio.sleep(9)
        said = transport.statistics()
        assert [replica.up for replica in said.balance.replicas] == [False]
        assert said.pool.active <= 1


# Connecting and closing.


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"], ids=["nothing", "half a record"])
async def test_a_tls_handshake_that_drips_ends_at_the_connect_limit(first: bytes, jumping: MockClock) -> None:
    handler = dripping(first, then=lambda: repeat(b"\0") if first else (), read=False)
    async with raw_server(handler) as server, calling(url(server, "https"), connect_timeout="3s") as caller:
        await caller.fails(Kind.TLS)
        assert trio.current_time() == pytest.approx(3, abs=0.1)


async def test_a_peer_that_never_sends_close_notify_delays_nothing(tmp_path: Path, jumping: MockClock) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with raw_server(_answers_and_sleeps, tls=context) as server:
        async with calling(url(server, "https"), tls={"ca": str(tmp_path / "ca.pem")}) as caller:
            assert (await caller.call(budget=DEADLINE)).status_code == 200
        assert trio.current_time() <= 1.1


async def _answers_and_sleeps(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(response(b"ok"))
    await trio.sleep(math.inf)


async def test_an_idle_connection_is_closed_whatever_bytes_arrive(jumping: MockClock) -> None:
    """Bytes on an idle connection are not read and do not keep it open."""

    async def chatters(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"ok"))
        while True:
            await trio.sleep(0.9)
            await peer.send(b"x")

    async with raw_server(chatters) as server, calling(url(server), keepalive_expiry="3s") as caller:
        await caller.call(budget=DEADLINE)
        assert caller.client.statistics().pool.idle == 1
        await trio.sleep(3.1)
        assert caller.client.statistics().pool.idle == 0
