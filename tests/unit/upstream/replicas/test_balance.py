"""The load balancer of an upstream, through calls: choice of the replica, ejection, load."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import httpx
import pytest
import trio

from tests.support.upstream.calls import Caller
from tests.support.upstream.memory_dial import ServerEnd
from tests.support.upstream.memory_hosts import Act, Hosts, Unreachable, answering, failing, hang, in_pieces
from umbel.core.errors import UpstreamError
from umbel.policy.replicas.ejection import EjectionRules
from umbel.upstream import Hedge, Retry, Transport
from umbel.upstream.calls.failure_kind import CLIENT_GONE
from umbel.upstream.errors import BadRequest, BudgetSpent, ConnectFailed, TooBig
from umbel.upstream.replicas.balance import LoadBalancer, ReplicaStatistics
from umbel.upstream.replicas.origin import Origin

A, B, C = "http://a", "http://b", "http://c"
REFUSED = failing(ConnectFailed("refused"))


def take(balance: LoadBalancer, number: int, now: float = 0.0, tried: Sequence[str] = ()) -> Counter[str]:
    """Attempts that end at once, and their replicas."""
    slots = [balance.take(now, tried) for _ in range(number)]
    for slot in slots:
        balance.ended(now, slot, now, False)
    return Counter(slot.name for slot in slots)


def to(hosts: Hosts, *urls: str, **options) -> Transport:
    """A transport to two hosts, or to others."""
    return Transport(urls or (A, B), dial=hosts, max_concurrency=10_000, rng=random.Random(1), **options)


async def ask(transport: Transport, number: int = 1) -> list[int]:
    """Make requests, and return the statuses of the responses."""
    statuses = []
    for _ in range(number):
        with suppress(UpstreamError):
            statuses.append((await transport.handle_async_request(httpx.Request("GET", "http://upstream"))).status_code)
    return statuses


async def arriving(transport: Transport, number: int, every: float) -> None:
    """Make requests at this rate."""
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(ask, transport)
            await trio.sleep(every)


def of(transport: Transport, place: int) -> ReplicaStatistics:
    return transport.statistics().balance.replicas[place]


# The choice of the replica


async def test_by_default_the_less_loaded_of_two_replicas_is_taken(autojump_clock) -> None:
    balance = LoadBalancer([A, B], rng=random.Random(1))
    slots = []
    for number in range(10):
        slots.append(balance.take(0.0, ()))
        in_flight = [each.in_flight for each in balance.statistics().replicas]
        assert abs(in_flight[0] - in_flight[1]) == (number + 1) % 2
    for slot in slots:
        balance.ended(1.0, slot, 0.0, False)
    assert [(each.taken, each.in_flight, each.usual) for each in balance.statistics().replicas] == [(5, 0, 1.0)] * 2


def test_replicas_are_taken_as_often_as_their_weights() -> None:
    balance = LoadBalancer([A, B, C], policy="weighted", weights=[5, 3, 2])
    assert take(balance, 20) == {A: 10, B: 6, C: 4}


@pytest.mark.parametrize(
    "options",
    [{"policy": "weighted"}, {"weights": [1, 2]}, {"policy": "weighted", "weights": [1]}],
)
def test_weights_that_do_not_fit_are_refused(options) -> None:
    with pytest.raises(ValueError, match="weight"):
        LoadBalancer([A, B], **options)
    with pytest.raises(ValueError, match="at least one replica"):
        LoadBalancer([])


def test_an_unknown_load_balancing_policy_is_refused() -> None:
    names = "'p2c', 'round_robin', 'weighted'"
    with pytest.raises(ValueError, match=f"no load-balancing policy 'p3c'; the policies are {names}"):
        LoadBalancer([A, B], policy="p3c")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_a_call_takes_no_replica_twice_while_there_is_another(
    policy, nursery: trio.Nursery, autojump_clock
) -> None:
    hosts = Hosts(nursery, a=answering(503), b=answering(503), c=answering(503))
    async with to(hosts, A, B, C, balance=policy, retry=Retry(attempts=4)) as transport:
        caller = Caller(transport.client)
        for _ in range(30):
            await caller.call()
            *first, last = (attempt.replica for attempt in caller.attempts)
            assert sorted(first) == [A, B, C]
            assert last in first


async def test_a_slow_replica_gets_fewer_attempts(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=answering(after=0.1), b=answering(after=1.0))
    async with to(hosts) as transport:
        await arriving(transport, 500, every=0.01)
    assert hosts.count()["b"] < 75


async def test_a_replica_that_fails_at_once_attracts_no_traffic(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=answering(after=0.1), b=REFUSED)
    async with to(hosts) as transport:
        await arriving(transport, 1000, every=0.01)
    # It gets an attempt whenever its last failure is a tenth of a second old, for ten seconds.
    assert 80 <= hosts.count()["b"] <= 120


# The request


async def test_each_replica_gives_its_requests_origin_host_and_base_path(nursery: trio.Nursery) -> None:
    hosts = Hosts(nursery, a=answering(), localhost=answering(), **{"::1": answering()})
    fields = {"host": "evil", "x-a": "1"}
    request = httpx.Request("GET", "http://upstream/no", headers=fields, extensions={"target": b"/t?q"})
    urls = "http://a:81/base", "https://[::1]", "unix:/run/x.sock"
    async with to(hosts, *urls, balance="round_robin") as transport:
        for _ in range(4):
            await transport.handle_async_request(request)
        assert [each.taken for each in transport.statistics().balance.replicas] == [2, 1, 1]
    first = (Origin("http", "a", 81), "GET /base/t?q HTTP/1.1", b"Host: a:81")
    assert [(each.origin, each.line, each.lines[0]) for each in hosts.asked] == [
        first,
        (Origin("https", "::1", 443), "GET /t?q HTTP/1.1", b"Host: [::1]"),
        (Origin("http", "localhost", 80, "/run/x.sock"), "GET /t?q HTTP/1.1", b"Host: localhost"),
        first,
    ]
    for each in hosts.asked:
        assert b"x-a: 1" in each.lines
        assert sum(line.lower().startswith(b"host:") for line in each.lines) == 1


async def test_the_httpx_request_of_the_caller_is_not_changed(nursery: trio.Nursery) -> None:
    request = httpx.Request("POST", "http://upstream/p?q=1", content=b"body")
    hosts = Hosts(nursery, a=answering())
    async with to(hosts, A) as transport:
        await transport.handle_async_request(request)
    assert (str(request.url), request.headers["host"], request.extensions) == ("http://upstream/p?q=1", "upstream", {})
    assert hosts.asked[0].line == "POST /p?q=1 HTTP/1.1"
    assert hosts.asked[0].request.endswith(b"\r\n\r\nbody")


# The end of an attempt


@pytest.mark.parametrize("bad", [answering(503), REFUSED])
async def test_five_failures_in_a_row_eject_a_replica_for_thirty_seconds(
    bad: Act | Unreachable, nursery: trio.Nursery, autojump_clock
) -> None:
    hosts = Hosts(nursery, a=answering(), b=bad)
    async with to(hosts, balance="round_robin", ejection=EjectionRules()) as transport:
        await ask(transport, 10)
        assert hosts.count() == {"a": 5, "b": 5}
        assert of(transport, 1).ejected_for == 30.0
        assert (transport.statistics().balance.ejections, of(transport, 1).failed) == (1, 5)
        await ask(transport, 10)
        assert hosts.count() == {"a": 10}
        await trio.sleep(30)
        await ask(transport, 10)
        assert hosts.count() == {"a": 5, "b": 5}
        assert of(transport, 1).ejected_for == 60.0


async def test_the_last_replica_is_never_ejected(nursery: trio.Nursery) -> None:
    hosts = Hosts(nursery, a=answering(500), b=answering(500))
    for urls in ([A], [A, B]):
        async with to(hosts, *urls, ejection=EjectionRules(failures=1, share=1.0)) as transport:
            assert await ask(transport, 20) == [500] * 20
            assert transport.statistics().balance.ejections == len(urls) - 1


@pytest.mark.parametrize("error", [TooBig("big"), BadRequest("bad"), RuntimeError("bug")])
async def test_failures_that_are_not_the_upstreams_fault_eject_no_replica(
    error: Exception, nursery: trio.Nursery
) -> None:
    hosts = Hosts(nursery, a=failing(error), b=failing(error))
    async with to(hosts, ejection=EjectionRules(failures=1)) as transport:
        for _ in range(20):
            with pytest.raises(type(error)):
                await transport.handle_async_request(httpx.Request("GET", "http://upstream"))
        assert transport.statistics().balance.ejections == 0
        assert [(each.in_flight, each.failed) for each in transport.statistics().balance.replicas] == [(0, 0), (0, 0)]


async def test_a_call_without_time_left_takes_no_replica(nursery: trio.Nursery, autojump_clock) -> None:
    async with to(Hosts(nursery)) as transport:
        with pytest.raises(BudgetSpent):
            await Caller(transport.client).call(budget=0.0)
        assert [(each.taken, each.failed) for each in transport.statistics().balance.replicas] == [(0, 0), (0, 0)]


async def cut(caller: Caller, after: float, reason: str, budget: float) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: caller.call(budget=budget))
            await trio.sleep(after)
            scope.cancel(reason=reason)


async def test_a_cancelled_attempt_counts_only_if_it_is_a_timeout(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=hang, b=hang)
    async with to(hosts, balance="round_robin", ejection=EjectionRules()) as transport:
        caller = Caller(transport.client)
        for reason in (CLIENT_GONE, "a sibling failed", "another has won"):
            for _ in range(10):
                await cut(caller, 5.0, reason, budget=10.0)
        replicas = transport.statistics().balance.replicas
        assert [(each.failed, each.in_flight) for each in replicas] == [(0, 0), (0, 0)]
        for _ in range(9):
            await cut(caller, 1.0, "deadline", budget=1.0)
        assert (of(transport, 0).failed, of(transport, 0).ejected_for) == (5, 30.0)
        assert of(transport, 1).failed == 4
        assert hosts.under_way == 0


@pytest.mark.parametrize("broken", [False, True])
async def test_a_streamed_response_is_in_flight_until_its_end(broken: bool, nursery: trio.Nursery) -> None:
    hosts = Hosts(nursery, a=in_pieces(broken=broken))
    request = httpx.Request("GET", "http://upstream", extensions={"stream": True})
    async with to(hosts, A) as transport:
        response = await transport.handle_async_request(request)
        assert of(transport, 0).in_flight == 1
        with suppress(UpstreamError):
            await response.aread()
            assert not broken
        assert (of(transport, 0).in_flight, of(transport, 0).failed) == (0, broken)
        await (await transport.handle_async_request(request)).aclose()
        assert (of(transport, 0).in_flight, of(transport, 0).failed) == (0, broken)


@pytest.mark.parametrize(
    ("script", "place", "busy"),
    [
        ([hang, answering()], 0, True),
        ([answering(503), answering(503), hang, answering()], 2, True),
        ([answering(after=2.0), hang], 1, False),
        ([hang], 0, False),
    ],
    ids=["by a hedge", "as a retry, by a hedge", "as a hedge itself", "the client left"],
)
async def test_an_overtaken_attempt_counts_as_load_for_a_time(
    script: list[Act], place: int, busy: bool, nursery: trio.Nursery, autojump_clock
) -> None:
    acts = iter(script)

    async def act(end: ServerEnd) -> None:
        await next(acts)(end)

    hosts = Hosts(nursery, a=act, b=act)
    async with to(hosts, retry=Retry(), hedge=Hedge(after=1.0)) as transport:
        if len(script) == 1:
            await cut(Caller(transport.client), 0.5, CLIENT_GONE, budget=10.0)
        else:
            assert await ask(transport) == [200]
        asked = hosts.take()
        assert len(asked) == len(script)
        hosts.acts = {"a": answering(), "b": answering()}
        await ask(transport, 20)
        assert (asked[place] in hosts.take()) is not busy
        await trio.sleep(1.0)
        await ask(transport, 20)
        assert asked[place] in hosts.take()
