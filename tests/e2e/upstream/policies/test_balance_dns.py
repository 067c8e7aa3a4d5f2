"""Traffic and health checks follow the addresses of a DNS name, over sockets on loopback."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.support.upstream.calls import Caller
from tests.support.upstream.nameserver import NameServer, Zone, nameserver
from tests.support.upstream.raw_server import Handler, Peer, RawServer, raw_server, response
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.upstream import BalanceStatistics, DnsReplicas, HealthRules, JoinedReplicas, Transport
from umbel.upstream.replicas.origin import Replica

ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Hosts:
    """A server at each address, all on one port, that answers with its address; and the name server."""

    def __init__(self) -> None:
        self.servers: dict[str, RawServer] = {}
        self.zone = Zone(a=[ONE, TWO], ttl=0)
        self.names = NameServer({})
        self.sick: set[str] = set()
        """Addresses whose checks fail."""
        self.checked: Counter[str] = Counter()
        self.go_on = trio.Event()
        """Requests for /slow are answered then."""

    def handler(self, address: str) -> Handler:
        async def handler(peer: Peer) -> None:
            while head := (await peer.read_request())[0]:
                if head.startswith(b"GET /slow"):
                    await self.go_on.wait()
                check = head.startswith(b"GET /health")
                self.checked[address] += check
                sick = check and address in self.sick
                await peer.send(response(address.encode(), status=b"503 X" if sick else b"200 OK"))

        return handler

    @property
    def port(self) -> int:
        return int(self.servers[ONE])

    def source(self) -> DnsReplicas:
        return DnsReplicas(f"dns+http://users.test:{self.port}", nameservers=self.names.at, ttl_min=0.02, ttl_max=0.1)


@asynccontextmanager
async def hosts() -> AsyncIterator[Hosts]:
    """Real time: nothing here takes long unless it hangs."""
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            hosts = Hosts()
            for address in (ONE, TWO, THREE):
                port = hosts.port if hosts.servers else 0
                server = raw_server(hosts.handler(address), host=address, port=port)
                hosts.servers[address] = await stack.enter_async_context(server)
            hosts.names = await stack.enter_async_context(nameserver({"users.test": hosts.zone}))
            yield hosts


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that sets no event."""
    while not happened():  # noqa: ASYNC110  # there is no event of it
        await trio.sleep(0.002)


async def answer(transport: Transport, target: bytes = b"/") -> str:
    """The address that answers a call."""
    return (await Caller(transport.client).call(target, budget=5.0)).text


async def seen(transport: Transport) -> set[str]:
    """The addresses that answer fifty calls, enough to reach each of three."""
    return {await answer(transport) for _ in range(50)}


def balance(transport: Transport) -> BalanceStatistics:
    return transport.statistics().balance


def addresses(source: DnsReplicas) -> set[str]:
    return {replica.origin.host for replica in source.replicas}


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_traffic_moves_from_a_removed_address_to_a_new_one(policy) -> None:
    async with hosts() as there:
        source = there.source()
        async with Transport(source, balance=policy) as transport:
            assert await seen(transport) == {ONE, TWO}
            slow: Counter[str] = Counter()

            async def ask_slowly() -> None:
                slow[await answer(transport, b"/slow")] += 1

            async with trio.open_nursery() as calls:
                for _ in range(4):
                    calls.start_soon(ask_slowly)
                await until(lambda: sum(each.in_flight for each in balance(transport).replicas) == 4)
                there.zone.a = [TWO]
                await until(lambda: addresses(source) == {TWO})
                assert await seen(transport) == {TWO}
                there.zone.a = [TWO, THREE]
                await until(lambda: addresses(source) == {TWO, THREE})
                assert THREE in await seen(transport)
                # The call in flight at the removed address was not affected.
                assert slow.total() == 0
                there.go_on.set()
            assert slow == {ONE: 2, TWO: 2}
            assert await seen(transport) == {TWO, THREE}
            statistics = balance(transport).replicas
            assert [each.name for each in statistics] == [
                f"http://users.test:{there.port} at {address}" for address in (TWO, THREE)
            ]
            assert all((each.in_flight, each.failed) == (0, 0) for each in statistics)
            Caller(transport.client).assert_nothing_left()


async def test_no_call_fails_while_addresses_change_under_load() -> None:
    async with hosts() as there:
        source = there.source()
        async with Transport(source) as transport:
            answers: Counter[str] = Counter()
            for number in range(300):
                there.zone.a = [[ONE, TWO], [TWO, THREE], [THREE], [THREE, ONE]][number // 10 % 4]
                answers[await answer(transport)] += 1
                await trio.sleep(0.001)
            assert answers.total() == 300
            assert answers.keys() == {ONE, TWO, THREE}
            assert all((each.in_flight, each.failed) == (0, 0) for each in balance(transport).replicas)


async def test_health_checks_follow_the_addresses_of_the_name() -> None:
    async with hosts() as there:
        source = there.source()
        async with Transport(source, health=HealthRules("/health", every=0.02)) as transport:

            def down() -> set[str]:
                return {each.name for each in balance(transport).replicas if not each.up}

            there.sick = {TWO}
            await until(lambda: len(down()) == 1)
            assert await seen(transport) == {ONE}
            there.zone.a = [TWO, THREE]
            await until(lambda: there.checked[THREE] > 0)
            assert await seen(transport) == {THREE}
            assert down() == {f"http://users.test:{there.port} at {TWO}"}
            there.checked.clear()
            await until(lambda: there.checked[TWO] > 3 and there.checked[THREE] > 3)
            assert there.checked[ONE] <= 1, "a check may have been under way"
            there.sick = set()
            await until(lambda: not down())
            assert await seen(transport) == {TWO, THREE}
        assert (transport.statistics().pool.active, transport.statistics().pool.idle) == (0, 0)


async def test_calls_to_an_unknown_name_fail_until_the_name_exists() -> None:
    async with hosts() as there:
        there.names.zones.clear()
        source = there.source()
        async with Transport(source) as transport:
            caller = Caller(transport.client)
            with pytest.raises(UpstreamError, match=r"users\.test") as caught:
                await caller.call()
            assert (caught.value.kind, caller.attempts) == (Kind.DNS, [])
            there.names.zones["users.test"] = there.zone
            await until(lambda: addresses(source) == {ONE, TWO})
            assert await seen(transport) == {ONE, TWO}
            # A name service that goes down fails no call.
            there.names.zones.clear()
            await until(lambda: source.statistics().failed_in_a_row > 2)
            assert await seen(transport) == {ONE, TWO}


async def test_a_fixed_address_and_a_name_are_joined() -> None:
    async with hosts() as there:
        there.zone.a = [TWO]
        source = there.source()
        joined = JoinedReplicas([Replica.parse(f"http://{ONE}:{there.port}"), source], [3, 1])
        async with Transport(joined, balance="weighted") as transport:
            taken: Counter[str] = Counter()
            for _ in range(40):
                taken[await answer(transport)] += 1
            assert taken == {ONE: 30, TWO: 10}
            there.zone.a = [THREE]
            await until(lambda: joined.replicas[-1].origin.host == THREE)
            assert await seen(transport) == {ONE, THREE}
