"""Calls over TLS: records of any size, session tickets, key updates, and ends with and without close_notify."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import facts
from tests.support.composition.over_sockets import ONE, assert_nothing_left, assert_recorded_once, configured
from tests.support.logs.records import Records
from tests.support.socket_streams import TlsPeer, key_update
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import Handler, Peer, RawServer, answering, open_sockets, raw_server, response
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan_run import run
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs, Outcome
from umbel.upstream import Client, Retry, Transport, build

CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"one\r\n4\r\n":1}\r\n0\r\n\r\n'
HEDGED = {"hedge": {"after": "1ms"}, "retry_budget": "100%"}


class Site:
    """Replicas with a certificate, an upstream's client that trusts it, and three ways to make calls."""

    def __init__(self, client: Client, servers: list[RawServer]) -> None:
        self.client = client
        self.servers = servers
        self.records = Records()

    async def route(self, **call: Any) -> list[Outcome]:
        """The outcomes of a route's calls."""
        made = configured({"urls": ["https://a"]}, {"a": call, "b": call})
        result = await run(compile_route(made, 0), Inputs(), facts(2.0), {"u": self.client}, self.records)
        return list(result.outcomes)

    async def each(self, **call: Any) -> list[Outcome]:
        """The outcome of an each of four."""
        made = configured(
            {"urls": ["https://a"]}, {"a": {"each": "[`1`, `2`, `3`, `4`]", "path": "/a/{item}", "limit": 3, **call}}
        )
        result = await run(compile_route(made, 0), Inputs(), facts(2.0), {"u": self.client}, self.records)
        return list(result.outcomes)

    async def gather(self, **call: Any) -> list[Outcome]:
        """The outcomes of calls made in code."""
        compose = Compose({"u": self.client}, Inputs(), facts(2.0), self.records)
        try:
            async with compose.gather() as block:
                handles = [block.get("u", f"/{number}", **call) for number in range(3)]
        except CompositionFailedError as error:
            return list(error.result.outcomes)
        return [handle.outcome for handle in handles]


WAYS: list[Callable[..., Awaitable[list[Outcome]]]] = [Site.route, Site.each, Site.gather]
ways = pytest.mark.parametrize("way", WAYS, ids=["route", "each", "gather"])
Answer = Callable[[TlsPeer, bytes], Awaitable[object]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Servers:
    """Makes upstreams of the module's authority."""

    def __init__(self, authority: trustme.CA, directory: Path) -> None:
        self.keys = directory / "keys"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.keylog_filename = str(self.keys)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self._ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(self._ca)

    @asynccontextmanager
    async def site(self, handler: Callable[[Peer], Awaitable[object]], **policies: Any) -> AsyncIterator[Site]:
        """Two replicas. At the end nothing of any call is left, nor any socket."""
        sockets = open_sockets()
        with trio.fail_after(20):
            async with AsyncExitStack() as entered:
                servers = [await entered.enter_async_context(raw_server(handler)) for _ in range(2)]
                urls = [f"https://127.0.0.1:{int(server)}" for server in servers]
                made = configured({"urls": urls, "tls": {"ca": str(self._ca)}, **policies}, {"a": {}})
                client = await entered.enter_async_context(build("u", made.upstreams["u"]))
                yield Site(client, servers)
                while sum(server.open for server in servers) > client.statistics().pool.idle:
                    await wait_all_tasks_blocked(0.001)
                assert_nothing_left(client)
        assert open_sockets() == sockets

    def answering(self, answer: Answer) -> Callable[[Peer], Awaitable[None]]:
        """Shake hands, then answer request by request; ``answer`` returns False to end the connection as it is."""

        async def handler(peer: Peer) -> None:
            tls = TlsPeer(peer.stream, self.context)
            try:
                tickets = await self._shake_hands(tls)
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        more = await tls.receive()
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    if tickets:
                        await tls.stream.send_all(tickets)
                        await trio.lowlevel.checkpoint()
                        tickets = b""
                    if await answer(tls, head) is False:
                        return
            except (trio.BrokenResourceError, ssl.SSLError):
                return  # The client closed without close_notify: a hedge that lost.

        return handler

    async def _shake_hands(self, tls: TlsPeer) -> bytes:
        """The session tickets, sent while the client waits for its response."""
        while True:
            try:
                tls.ssl.do_handshake()
            except ssl.SSLWantReadError:
                await tls.flush()
                await tls.feed()
            else:
                return tls.outgoing.read()


@pytest.fixture
def servers(authority: trustme.CA, tmp_path: Path) -> Servers:
    return Servers(authority, tmp_path)


async def tiny_records(tls: TlsPeer, head: bytes) -> None:
    """A record per byte, all of them at once."""
    await tls.send(*[bytes([byte]) for byte in CHUNKED])


async def tiny_records_one_by_one(tls: TlsPeer, head: bytes) -> None:
    for byte in ONE:
        await tls.send(bytes([byte]))
        await trio.lowlevel.checkpoint()


async def tiny_segments(tls: TlsPeer, head: bytes) -> None:
    """One record, a byte at a time."""
    for byte in tls.records(ONE):
        await tls.stream.send_all(bytes([byte]))
        await trio.lowlevel.checkpoint()


async def late(tls: TlsPeer, head: bytes) -> None:
    """Answer so late that each call is hedged."""
    await trio.sleep(0.01)
    await tls.send(ONE)


def assert_values(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.failure is None
        assert outcome.value in ({"one": 1}, [{"one": 1}] * 4)


@ways
@pytest.mark.parametrize("answer", [tiny_records, tiny_records_one_by_one, tiny_segments, late])
async def test_tls_records_of_any_size_give_the_same_values(
    way: Callable[..., Awaitable[list[Outcome]]], answer: Answer, servers: Servers
) -> None:
    async with servers.site(servers.answering(answer), **HEDGED) as site:
        for _ in range(5):
            assert_values(await way(site))
        said = site.client.statistics()
        assert said.hedge.hedges > 0 or answer is not late
    assert_recorded_once(site.records, len(site.records.calls))


async def test_session_tickets_before_a_response_are_not_data(servers: Servers) -> None:
    servers.context.num_tickets = 4
    async with servers.site(servers.answering(at_once)) as site:
        for way in WAYS * 3:
            assert_values(await way(site))
        pool = site.client.statistics().pool
        assert (pool.stale, pool.replaced) == (0, 0)
        assert pool.reused > pool.opened


async def at_once(tls: TlsPeer, head: bytes) -> None:
    await tls.send(ONE)


async def test_a_key_update_while_idle_is_not_data_and_the_connection_is_reused(servers: Servers) -> None:
    """OpenSSL's server cannot send after the injected key update, but it still receives."""
    servers.context.num_tickets = 0
    understood: list[bytes] = []

    async def answer(tls: TlsPeer, head: bytes) -> bool:
        understood.append(head.split(b" ")[1])
        if understood.count(understood[-1]) == 1 and understood[-1] == b"/2":
            return False
        await tls.send(ONE)
        await tls.stream.send_all(key_update(servers.keys, 1))
        return True

    async with servers.site(servers.answering(answer), balance="round_robin") as site:
        for target in ("/1", "/1", "/2"):
            compose = Compose({"u": site.client}, Inputs(), facts(2.0), site.records)
            async with compose.gather() as block:
                assert await block.get("u", target) == {"one": 1}
            await wait_all_tasks_blocked(0.001)
        pool = site.client.statistics().pool
        assert (pool.stale, pool.reused, pool.replaced, pool.opened) == (0, 1, 1, 3)
    assert understood == [b"/1", b"/1", b"/2", b"/2"]


@ways
async def test_without_close_notify_a_body_without_a_length_is_incomplete(
    way: Callable[..., Awaitable[list[Outcome]]], servers: Servers
) -> None:
    async def cut(tls: TlsPeer, head: bytes) -> bool:
        await tls.send(b'HTTP/1.1 200 OK\r\n\r\n{"one":1}')
        return False

    async with servers.site(servers.answering(cut), **HEDGED) as site:
        for outcome in await way(site, optional=True):
            assert outcome.failure is not None
            assert (outcome.failure.kind, outcome.failure.proxy_error) == (Kind.MALFORMED, "http_response_incomplete")


@ways
async def test_without_close_notify_a_complete_response_is_used_and_its_connection_closed(
    way: Callable[..., Awaitable[list[Outcome]]], servers: Servers
) -> None:
    async def answer_and_cut(tls: TlsPeer, head: bytes) -> bool:
        await tls.send(ONE)
        return False

    async with servers.site(servers.answering(answer_and_cut)) as site:
        for _ in range(3):
            assert_values(await way(site))
            await wait_all_tasks_blocked(0.001)
        pool = site.client.statistics().pool
        assert pool.replaced == pool.reused


@ways
@pytest.mark.parametrize("said", [0, 1, 5, 6, 60, 130, 500, 900], ids=lambda said: f"{said} bytes")
async def test_a_client_that_leaves_during_the_handshake_leaves_no_socket(
    way: Callable[..., Awaitable[list[Outcome]]], said: int, servers: Servers
) -> None:
    """The server has sent this part of its handshake, and waits."""
    hellos, all_there = 0, trio.Event()

    async def stall(peer: Peer) -> None:
        nonlocal hellos
        tls = TlsPeer(peer.stream, servers.context)
        await tls.feed()
        with pytest.raises(ssl.SSLWantReadError):
            tls.ssl.do_handshake()
        await tls.stream.send_all(tls.outgoing.read()[:said])
        hellos += 1
        if hellos == 4:  # Some of the hedges are there too.
            all_there.set()
        assert await peer.closed()

    async with servers.site(stall, **HEDGED) as site:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(way, site)
                await all_there.wait()
                await wait_all_tasks_blocked()
                assert site.client.statistics().pool.connecting >= 4
                scope.cancel(reason="client-gone")
        assert site.client.statistics().pool.connecting == site.client.statistics().bulkhead.in_flight == 0
        for server in site.servers:
            await server.all_closed()
    assert {event.outcome.failure.kind for event in site.records.calls if event.outcome.failure} == {Kind.CLIENT_GONE}
    attempts = [attempt for event in site.records.calls for attempt in event.outcome.attempts]
    assert {attempt.kind for attempt in attempts} == {Kind.CLIENT_GONE}
    assert {attempt.cause for attempt in attempts} == {"first", "hedge"}
    assert_recorded_once(site.records, len(site.records.calls))


async def hangs_in_the_handshake(peer: Peer) -> None:
    await trio.sleep_forever()


async def leaves_in_the_handshake(peer: Peer) -> None:
    await peer.stream.receive_some()


async def resets_in_the_handshake(peer: Peer) -> None:
    await peer.stream.receive_some()
    peer.reset()


@pytest.mark.parametrize("bad", [hangs_in_the_handshake, leaves_in_the_handshake, resets_in_the_handshake])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_call_is_retried_on_another_replica_if_the_tls_handshake_breaks_off(bad: Handler, method: str) -> None:
    ca, server_context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    ca.configure_trust(client_context)
    async with (
        raw_server(bad) as first,
        raw_server(answering(response(b"ok")), tls=server_context) as second,
        Transport(
            [url(first, "https"), url(second, "https")],
            balance="round_robin",
            connect_timeout=0.2,
            ssl_context=client_context,
            retry=Retry(backoff=0.001),
        ) as transport,
    ):
        for _ in range(2):
            answer = await transport.handle_async_request(httpx.Request(method, "http://u/"))
            assert answer.status_code == 200
        assert transport.statistics().retry.retries >= 1
        assert len(first.connections) >= 1
