"""A set of replicas that changes: state of the replicas, and calls in flight."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Self

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.upstream.calls import Caller
from tests.support.upstream.memory_hosts import Act, Hosts, answering, failing, in_pieces
from tests.support.upstream.replica_sources import ChangingReplicas
from umbel.core.errors import NotRunningError, UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState
from umbel.policy.replicas.ejection import EjectionRules
from umbel.upstream import BreakerRules, JoinedReplicas, Retry, Transport
from umbel.upstream.errors import AddressRefused, BreakerOpen, ConnectFailed, NameFailed
from umbel.upstream.replicas.balance import LoadBalancer, ReplicaSlot, ReplicaStatistics
from umbel.upstream.replicas.origin import Replica

A, B, C = (Replica.parse(f"http://{host}") for host in "abc")
REFUSED = failing(ConnectFailed("refused"))


def of(balance: LoadBalancer) -> dict[str, ReplicaStatistics]:
    """The statistics by host."""
    return {each.name.removeprefix("http://"): each for each in balance.statistics().replicas}


def slots(balance: LoadBalancer, number: int, *, failed: bool | None = False) -> list[ReplicaSlot]:
    """Attempts, ended at once; ``failed`` None: they are still under way."""
    taken = [slot for _ in range(number) if (slot := balance.take(0.0, ())) is not None]
    for slot in taken if failed is not None else ():
        balance.ended(0.0, slot, 0.0, failed)
    return taken


def hosts_of(taken: list[ReplicaSlot]) -> str:
    return "".join(slot.replica.origin.host for slot in taken)


async def answered(caller: Caller, answers: list[int]) -> None:
    """Make a call, and keep its status."""
    answers.append((await caller.call(budget=100.0)).status_code)


# The set


@pytest.mark.parametrize("policy", ["p2c", "round_robin", "weighted"])
def test_the_next_attempt_sees_the_changed_set(policy) -> None:
    source = ChangingReplicas(A, B)
    balance = LoadBalancer(source, policy=policy)
    for replicas, names in (((A, B), "ab"), ((B, C), "bc"), ((A,), "a")):
        source.become(*replicas)
        assert "".join(sorted(set(hosts_of(slots(balance, 20))))) == names


async def test_an_unchanged_set_is_not_examined() -> None:
    source = ChangingReplicas(A, B)
    balance = LoadBalancer(source)
    before = source.looked_through
    slots(balance, 10)
    balance.statistics()
    assert source.looked_through == before
    source.become(A)
    slots(balance, 10)
    assert source.looked_through == before + 1


async def test_a_replica_that_stays_keeps_its_state(autojump_clock) -> None:
    source = ChangingReplicas(A, B)
    balance = LoadBalancer(source, policy="round_robin", ejection=EjectionRules(failures=1))
    (a,) = slots(balance, 1, failed=None)
    balance.ended(0.5, a, 0.0, False)
    slots(balance, 1, failed=True)
    slots(balance, 1, failed=None)
    before = of(balance)
    assert (before["a"].taken, before["a"].in_flight, before["a"].usual) == (2, 1, 0.5)
    assert (before["b"].failed, before["b"].ejected_for) == (1, 30.0)
    source.become(C, A, B)
    after = of(balance)
    assert list(after) == ["c", "a", "b"], "statistics know before the next attempt does"
    assert (after["a"], after["b"]) == (before["a"], before["b"])
    assert (after["c"].taken, after["c"].in_flight, after["c"].failed) == (0, 0, 0)
    assert sorted(hosts_of(slots(balance, 4))) == ["a", "a", "c", "c"]
    assert balance.statistics().ejections == 1


@pytest.mark.parametrize("failed", [False, True])
async def test_an_attempt_of_a_replica_that_left_does_not_count_for_a_new_one_of_its_name(failed: bool) -> None:
    source = ChangingReplicas(A, B)
    balance = LoadBalancer(source, policy="round_robin", ejection=EjectionRules())
    taken = slots(balance, 20, failed=None)
    for replicas in ((B,), (A, B)):
        source.become(*replicas)
        assert of(balance)["b"].in_flight == 10
    for slot in taken:
        balance.ended(1.0, slot, 0.0, failed)
    a, b = of(balance).values()
    assert (a.taken, a.in_flight, a.failed, a.ejected_for) == (0, 0, 0, 0)
    assert (b.taken, b.in_flight, b.failed) == (10, 0, 10 * failed)


async def test_an_attempt_in_flight_at_a_replica_that_leaves_gets_its_response(
    nursery: trio.Nursery, autojump_clock
) -> None:
    source, answers = ChangingReplicas(A), []
    async with Transport(source, dial=Hosts(nursery, a=answering(after=1.0))) as transport:
        nursery.start_soon(answered, Caller(transport.client), answers)
        await trio.testing.wait_all_tasks_blocked()
        source.become(B)
        assert of(transport.client.balance).keys() == {"b"}
        await trio.sleep(0.5)
        source.become(A, B)  # The replica returns before the attempt has ended, as a new one.
        await trio.sleep(1.0)
        assert answers == [200]
        back = of(transport.client.balance)["a"]
        assert (back.taken, back.in_flight, back.usual) == (0, 0, 0.1)


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
def test_a_call_takes_no_tried_replica_after_a_change_of_the_set(policy) -> None:
    for _ in range(20):
        source, tried = ChangingReplicas(A, B), []
        balance = LoadBalancer(source, policy=policy)
        for replicas in ((A, B), (C, A, B), (A, B, C)):
            source.become(*replicas)
            slot = balance.take(0.0, tried)
            assert slot is not None
            tried.append(slot.name)
        assert sorted(tried) == ["http://a", "http://b", "http://c"]


def test_changed_weights_of_the_source_apply() -> None:
    source = ChangingReplicas(A, B)
    source.weighed = {A.name: 3}
    balance = LoadBalancer(source, policy="weighted")
    assert sorted(hosts_of(slots(balance, 8))) == list("aaaaaabb")
    source.weighed = {B.name: 2}
    source.become(B, C)
    assert sorted(hosts_of(slots(balance, 9))) == list("bbbbbbccc")
    with pytest.raises(ValueError, match="weights of its own"):
        LoadBalancer(source, policy="weighted", weights=[1, 1])


async def test_fixed_replicas_and_sources_are_joined() -> None:
    source = ChangingReplicas()
    async with LoadBalancer(JoinedReplicas([A, source]), policy="round_robin") as balance:
        taken = slots(balance, 2)
        source.become(B, C)
        await trio.testing.wait_all_tasks_blocked()
        assert hosts_of(taken + slots(balance, 3)) == "aaabc"


# No replica


async def test_without_a_replica_a_call_fails_with_the_sources_error(nursery: trio.Nursery) -> None:
    source, hosts = ChangingReplicas(), Hosts(nursery, a=answering())
    async with Transport(source, dial=hosts) as transport:
        caller = Caller(transport.client)
        with pytest.raises(NameFailed, match="gone"):
            await caller.call()
        assert (hosts.asked, caller.attempts, transport.statistics().balance.replicas) == ([], [], ())
        source.become(A)
        await caller.call()
        source.become()
        with pytest.raises(NameFailed):
            await caller.call()
        assert hosts.take() == ["a"]


async def test_an_attempt_without_a_replica_counts_for_the_breaker(nursery: trio.Nursery, autojump_clock) -> None:
    source = ChangingReplicas()
    breaker = BreakerRules(min_requests=4, failure_ratio=0.1)
    hosts = Hosts(nursery, a=answering())
    async with Transport(source, dial=hosts, breaker=breaker, retry=Retry()) as transport:
        caller = Caller(transport.client)

        async def call() -> int | Kind:
            try:
                return (await caller.call(budget=100.0)).status_code
            except UpstreamError as error:
                return error.kind

        def state() -> BreakerState | None:
            found = transport.statistics().breaker
            return found and found.state

        assert await call() is Kind.DNS
        snapshot = transport.statistics().breaker
        assert snapshot is not None
        assert (snapshot.requests, snapshot.failures) == (2, 2)
        for _ in range(3):
            await call()
        assert state() is BreakerState.OPEN
        # A probe without a replica opens the breaker again; a probe with one closes it.
        await trio.sleep(5)
        assert await call() is Kind.DNS
        with pytest.raises(BreakerOpen):
            await caller.call()
        source.become(A)
        await trio.sleep(5)
        assert await call() == 200
        assert state() is BreakerState.CLOSED


async def test_an_open_breaker_stops_the_retries_of_a_call_without_a_replica(
    nursery: trio.Nursery, autojump_clock
) -> None:
    breaker, retry = BreakerRules(min_requests=1), Retry(attempts=10)
    async with Transport(ChangingReplicas(), dial=Hosts(nursery), breaker=breaker, retry=retry) as transport:
        before = trio.current_time()
        with pytest.raises(NameFailed):
            await Caller(transport.client).call(budget=100.0)
        assert trio.current_time() == before


async def test_a_retry_takes_a_replica_that_joined_during_the_pause(nursery: trio.Nursery, autojump_clock) -> None:
    source = ChangingReplicas()
    async with Transport(source, dial=Hosts(nursery, a=answering()), retry=Retry(backoff=1.0)) as transport:
        caller, answers = Caller(transport.client), []
        nursery.start_soon(answered, caller, answers)
        await trio.testing.wait_all_tasks_blocked()
        source.become(A)
        await trio.sleep(1.0)
        assert answers == [200]
        assert [(each.replica, each.cause) for each in caller.attempts] == [("http://a", "retry")]


async def test_a_name_with_only_prohibited_addresses_fails_with_kind_connect(nursery: trio.Nursery) -> None:
    class Refusing(ChangingReplicas):
        def missing(self) -> UpstreamError:
            return AddressRefused("every one of them")

    async with Transport(Refusing(), dial=Hosts(nursery)) as transport:
        with pytest.raises(AddressRefused) as caught:
            await Caller(transport.client).call()
    assert caught.value.kind is Kind.CONNECT


# Its lifetime


async def test_a_source_is_entered_as_long_as_the_client(nursery: trio.Nursery) -> None:
    source = ChangingReplicas(A)
    transport = Transport(source, dial=Hosts(nursery))
    async with transport:
        async with transport:
            assert source.entered == 2
        assert source.entered == 1
    assert source.entered == 0


async def test_a_cancel_while_waiting_for_the_first_set_leaves_nothing_entered(
    nursery: trio.Nursery, autojump_clock
) -> None:
    class Slow(ChangingReplicas):
        async def __aenter__(self) -> Self:
            await trio.sleep(10)
            raise AssertionError("it was cancelled before")

    transport = Transport(Slow(A), dial=Hosts(nursery, a=answering()))
    with trio.move_on_after(1) as scope:
        async with transport:
            raise AssertionError("it cannot be entered")
    assert scope.cancelled_caught
    with pytest.raises(NotRunningError):
        await Caller(transport.client).call()


# All together

SETS = st.lists(st.lists(st.sampled_from([A, B, C]), unique=True), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(SETS, st.sampled_from(["p2c", "round_robin", "weighted"]), st.integers(0, 2**32))
def test_counts_stay_right_while_the_set_changes_under_load(sets: list[list[Replica]], policy, seed: int) -> None:
    rng, source = random.Random(seed), ChangingReplicas()
    acts: list[Act] = [in_pieces(), in_pieces(broken=True), answering(503), answering()]

    async def act(end) -> None:
        await trio.sleep(rng.random())
        await rng.choice(acts)(end)

    class Seeing(Hosts):
        async def __call__(self, origin, timeout):
            assert origin.host in {replica.origin.host for replica in source.replicas}
            if rng.random() < 0.3:
                raise ConnectFailed("no")
            return await super().__call__(origin, timeout)

    async def call(transport: Transport) -> None:
        request = httpx.Request("GET", "http://upstream", extensions={"stream": rng.random() < 0.5})
        with trio.move_on_after(rng.random() * 1.5), suppress(UpstreamError):
            response = await transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            hosts = Seeing(nursery, a=act, b=act, c=act)
            options = {"max_concurrency": 10_000, "ejection": EjectionRules(), "rng": rng}
            async with Transport(source, dial=hosts, balance=policy, **options) as transport:
                async with trio.open_nursery() as calls:
                    for replicas in sets:
                        source.become(*replicas)
                        for _ in range(10):
                            calls.start_soon(call, transport)
                            await trio.sleep(0.02)
                            assert all(each.in_flight >= 0 for each in transport.statistics().balance.replicas)
                statistics = transport.statistics()
                assert [each.name for each in statistics.balance.replicas] == [each.name for each in sets[-1]]
                for each in statistics.balance.replicas:
                    assert (each.in_flight, each.failed <= each.taken) == (0, True)
                assert (statistics.pool.active, statistics.bulkhead.in_flight) == (0, 0)
            nursery.cancel_scope.cancel(reason="the test is over")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
