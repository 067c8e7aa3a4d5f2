"""Breaker, load balancing, health checks and bulkhead over sockets, with an upstream that fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import trio

from tests.support.upstream.calls import Caller, url
from tests.support.upstream.raw_server import Handler, Peer, answering, raw_server, response, silent
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState
from umbel.policy.replicas.ejection import EjectionRules
from umbel.upstream import BreakerOpen, BreakerRules, HealthRules, Overflow, Retry, Transport


class Mortal:
    """An upstream that can be killed: its listener and all of its connections close at once."""

    def __init__(self, handler: Handler) -> None:
        self.port = 0
        self._handler = handler
        self._scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            async with raw_server(self._handler) as server:
                self.port = int(server)
                task_status.started()
                await trio.sleep_forever()

    def kill(self) -> None:
        self._scope.cancel(reason="killed")


def slowly(body: bytes, seconds: float) -> Handler:
    async def handler(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await trio.sleep(seconds)
            await peer.send(response(body))

    return handler


@asynccontextmanager
async def limited(seconds: float = 20.0) -> AsyncIterator[AsyncExitStack]:
    """Real time: nothing here takes long unless it hangs."""
    with trio.fail_after(seconds):
        async with AsyncExitStack() as stack:
            yield stack


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that sets no event."""
    while not happened():  # noqa: ASYNC110  # there is no event of it
        await trio.sleep(0.002)


@pytest.mark.parametrize("latency", [0.005, 0.02, 0.05])
async def test_killing_one_of_two_replicas_under_load_fails_no_call(nursery: trio.Nursery, latency: float) -> None:
    replicas = [Mortal(slowly(name, latency)) for name in (b"a", b"b")]
    for replica in replicas:
        await nursery.start(replica.run)
    answers: Counter[bytes] = Counter()
    failures: list[UpstreamError] = []
    async with limited() as stack:
        urls = [f"http://127.0.0.1:{replica.port}" for replica in replicas]
        transport = Transport(urls, ejection=EjectionRules(), retry=Retry(), breaker=BreakerRules())
        await stack.enter_async_context(transport)

        async def call() -> None:
            try:
                got = await Caller(transport.client).call(budget=5.0)
            except UpstreamError as error:
                failures.append(error)
            else:
                answers[got.content] += 1

        async with trio.open_nursery() as calls:
            begun = trio.current_time()
            for number in range(400):
                await trio.sleep_until(begun + number / 200)
                if number == 200:
                    replicas[1].kill()
                calls.start_soon(call)
        assert failures == []
        assert answers.total() == 400
        assert answers[b"b"] > 50
        # It is ejected after five failures in a row, and gets no further attempt.
        statistics = transport.statistics()
        killed = statistics.balance.replicas[1]
        assert killed.ejected_for > 20
        assert 5 <= killed.failed <= 40
        assert [each.in_flight for each in statistics.balance.replicas] == [0, 0]
        assert statistics.breaker is not None
        assert statistics.breaker.state is BreakerState.CLOSED


async def test_calls_of_a_dead_upstream_fail_at_once_after_its_breaker_opened(nursery: trio.Nursery) -> None:
    dead = Mortal(silent)
    await nursery.start(dead.run)
    async with limited() as stack:
        rules = BreakerRules(open_for=0.3, min_requests=5)
        transport = await stack.enter_async_context(Transport([f"http://127.0.0.1:{dead.port}"], breaker=rules))
        caller = Caller(transport.client)

        async def kind(budget: float) -> Kind | int:
            with trio.move_on_after(budget):
                try:
                    return (await caller.call(budget=budget)).status_code
                except UpstreamError as error:
                    return error.kind
            return Kind.TIMEOUT

        for _ in range(5):
            assert await kind(0.05) is Kind.TIMEOUT
        began = time.perf_counter()
        for _ in range(100):
            assert await kind(5.0) is Kind.BREAKER_OPEN
        assert time.perf_counter() - began < 0.2
        assert transport.statistics().pool.opened == 5
        caller.assert_nothing_left()
        # While the upstream is dead the probe is refused; when it is alive again the probe closes the breaker.
        dead.kill()
        await trio.sleep(0.3)
        assert await kind(5.0) is Kind.CONNECT
        assert await kind(5.0) is Kind.BREAKER_OPEN


async def test_a_slow_upstream_takes_only_its_own_places() -> None:
    async with limited() as stack:
        slow = await stack.enter_async_context(raw_server(silent))
        fast = await stack.enter_async_context(raw_server(answering(response(b"fast"))))
        slowly, quickly = [Transport([url(server)], max_concurrency=10, max_queue=5) for server in (slow, fast)]
        for transport in (slowly, quickly):
            await stack.enter_async_context(transport)
        overflowed = 0

        async def hang() -> None:
            nonlocal overflowed
            try:
                await Caller(slowly.client).call()
            except Overflow:
                overflowed += 1

        async with trio.open_nursery() as hanging:
            for _ in range(40):
                hanging.start_soon(hang)
            await until(lambda: len(slow.connections) == 10 and overflowed == 25)
            began = time.perf_counter()
            for _ in range(20):
                assert (await Caller(quickly.client).call()).content == b"fast"
            assert time.perf_counter() - began < 2.0
            bulkhead = slowly.statistics().bulkhead
            assert (bulkhead.in_flight, bulkhead.waiting, bulkhead.overflowed) == (10, 5, 25)
            assert len(slow.connections) == 10
            hanging.cancel_scope.cancel(reason="the test is over")
        Caller(slowly.client).assert_nothing_left()


async def test_a_replica_whose_checks_fail_gets_no_traffic_until_they_pass() -> None:
    sick = False

    async def handler(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            bad = sick and head.startswith(b"GET /health")
            await peer.send(response(b"sick", status=b"503 X" if bad else b"200 OK"))

    async with limited() as stack:
        patient = await stack.enter_async_context(raw_server(handler))
        well = await stack.enter_async_context(raw_server(answering(response(b"well"))))
        rules = HealthRules("/health", every=0.02)
        transport = await stack.enter_async_context(Transport([url(patient), url(well)], health=rules))

        def up() -> list[bool]:
            return [each.up for each in transport.statistics().balance.replicas]

        async def seen() -> set[bytes]:
            return {(await Caller(transport.client).call()).content for _ in range(20)}

        assert await seen() == {b"sick", b"well"}
        sick = True
        await until(lambda: up() == [False, True])
        assert await seen() == {b"well"}
        sick = False
        await until(lambda: up() == [True, True])
        assert await seen() == {b"sick", b"well"}
        await stack.aclose()
        assert (transport.statistics().pool.active, transport.statistics().pool.idle) == (0, 0)


async def test_an_httpx_client_uses_an_upstream_with_its_policies() -> None:
    async with limited() as stack:
        server = await stack.enter_async_context(raw_server(answering(response(b"x", status=b"500 X"))))
        transport = Transport([url(server)], breaker=BreakerRules(min_requests=3), retry=Retry())
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport))
        for _ in range(3):
            assert (await client.get("http://whatever.example")).status_code == 500
        with pytest.raises(httpx.ConnectError) as caught:
            await client.get("http://whatever.example")
        assert isinstance(caught.value, BreakerOpen)
        assert len(server.connections) == 1
