"""The balance layer above replicas that come and go."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Self

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.layers import Bottom, Pieces, answering, asked, call_facts, complete, hang
from tests.support.sources import Given
from umbel.errors import UpstreamError
from umbel.kinds import Kind
from umbel.policy.breaker import State
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance, ReplicaStatistics
from umbel.upstream.breaker import Breaker
from umbel.upstream.errors import AddressRefused, BreakerOpen, ConnectFailed, NameFailed
from umbel.upstream.origin import Replica
from umbel.upstream.replicas import JoinedReplicas
from umbel.upstream.retry import Retry
from umbel.upstream.state import opened

A, B, C = (Replica.parse(f"http://{host}") for host in "abc")


def of(balance: Balance) -> dict[str, ReplicaStatistics]:
    """The statistics by host."""
    return {each.name.removeprefix("http://"): each for each in balance.statistics().replicas}


async def ask(balance: httpx.AsyncBaseTransport, number: int) -> None:
    for _ in range(number):
        with suppress(ConnectFailed):
            await balance.handle_async_request(asked())


def taken(bottom: Bottom) -> str:
    """The hosts that were asked since the last time, in order."""
    hosts = "".join(request.url.host for request in bottom.requests)
    bottom.requests.clear()
    return hosts


# The set


@pytest.mark.parametrize("policy", ["p2c", "round_robin", "weighted"])
async def test_the_next_request_knows_who_has_come_and_who_has_left(policy) -> None:
    source, bottom = Given(A, B), Bottom(answering())
    async with Balance(bottom, source, policy=policy) as balance:
        await ask(balance, 20)
        assert set(taken(bottom)) == {"a", "b"}
        source.become(B, C)
        await ask(balance, 20)
        assert set(taken(bottom)) == {"b", "c"}
        source.become(A)
        await ask(balance, 3)
        assert taken(bottom) == "aaa"


async def test_a_set_that_has_not_changed_is_not_looked_through() -> None:
    source = Given(A, B)
    async with Balance(Bottom(answering()), source) as balance:
        before = source.looked_through
        await ask(balance, 10)
        balance.statistics()
        assert source.looked_through == before
        source.become(A)
        await ask(balance, 10)
        assert source.looked_through == before + 1


async def test_who_stays_keeps_all_that_is_known_of_it(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        if request.url.host == "b":
            raise ConnectFailed("refused")
        await trio.sleep(0.5)
        return complete()

    source, bottom = Given(A, B), Bottom(act)
    async with Balance(bottom, source, policy="round_robin") as balance, trio.open_nursery() as nursery:
        await ask(balance, 10)
        assert of(balance)["b"].ejected_for > 0
        nursery.start_soon(balance.handle_async_request, asked())
        await trio.testing.wait_all_tasks_blocked()
        before = of(balance)
        assert (before["a"].taken, before["a"].in_flight, before["a"].usual) == (6, 1, 0.5)
        source.become(C, A, B)
        after = of(balance)
        assert list(after) == ["c", "a", "b"], "statistics know before the next request does"
        assert (after["a"], after["b"]) == (before["a"], before["b"])
        assert (after["c"].taken, after["c"].in_flight, after["c"].failed) == (0, 0, 0)
        taken(bottom)
        await ask(balance, 4)
        assert Counter(taken(bottom)) == {"a": 2, "c": 2}
    assert balance.statistics().ejections == 1


async def test_what_is_in_flight_on_one_that_leaves_ends_as_it_would_have(autojump_clock) -> None:
    source, bottom = Given(A), Bottom(answering(after=1.0))
    async with Balance(bottom, source) as balance, trio.open_nursery() as nursery:
        answers: list[int] = []

        async def call() -> None:
            answers.append((await balance.handle_async_request(asked())).status_code)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        source.become(B)
        assert of(balance).keys() == {"b"}
        await trio.sleep(0.5)
        source.become(A, B)  # It is back before that has ended, as a new one.
        assert (of(balance)["a"].taken, of(balance)["a"].in_flight) == (0, 0)
        await trio.sleep(1.0)
        assert answers == [200]
        assert (of(balance)["a"].in_flight, of(balance)["a"].usual) == (0, 0.1)


@pytest.mark.parametrize("error", [None, httpx.ReadError("broke")])
async def test_so_does_a_streamed_response_whose_failure_harms_no_namesake(error: Exception | None) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces(error))

    source = Given(A, B)
    async with Balance(Bottom(act), source, policy="round_robin") as balance:
        responses = [await balance.handle_async_request(asked()) for _ in range(20)]
        for replicas in ((B,), (A, B)):
            source.become(*replicas)
            assert of(balance)["b"].in_flight == 10
        for response in responses:
            with suppress(httpx.ReadError):
                await response.aread()
            await response.aclose()
        a, b = of(balance).values()
        assert (a.taken, a.in_flight, a.failed, a.ejected_for) == (0, 0, 0, 0)
        assert (b.taken, b.in_flight, b.failed) == (10, 0, 0 if error is None else 10)


async def test_a_call_takes_none_that_it_has_tried_though_the_set_changes_between() -> None:
    bottom = Bottom(answering())
    for policy in ("p2c", "round_robin"):
        for _ in range(20):
            source = Given(A, B)
            async with Balance(bottom, source, policy=policy) as balance:
                request = asked()
                request, state = opened(request)
                for replicas in ((A, B), (C, A, B), (A, B, C)):
                    source.become(*replicas)
                    await balance.handle_async_request(request)
                assert set(taken(bottom)) == {"a", "b", "c"}
                assert sorted(state.tried) == ["http://a", "http://b", "http://c"]


async def test_the_sources_weights_are_followed() -> None:
    source, bottom = Given(A, B), Bottom(answering())
    source.weighed = {A.name: 3}
    async with Balance(bottom, source, policy="weighted") as balance:
        await ask(balance, 8)
        assert Counter(taken(bottom)) == {"a": 6, "b": 2}
        source.weighed = {B.name: 2}
        source.become(B, C)
        await ask(balance, 9)
        assert Counter(taken(bottom)) == {"b": 6, "c": 3}
    with pytest.raises(ValueError, match="weights of its own"):
        Balance(bottom, source, policy="weighted", weights=[1, 1])


async def test_fixed_replicas_and_sources_stand_side_by_side(autojump_clock) -> None:
    source, bottom = Given(), Bottom(answering())
    async with Balance(bottom, JoinedReplicas([A, source]), policy="round_robin") as balance:
        await ask(balance, 2)
        source.become(B, C)
        await trio.testing.wait_all_tasks_blocked()
        await ask(balance, 3)
        assert taken(bottom) == "aaabc"


# Nobody there


async def test_without_a_replica_a_request_fails_with_what_the_source_says() -> None:
    source, bottom = Given(), Bottom(answering())
    async with Balance(bottom, source) as balance:
        request = asked(call_facts(1.0))
        request, state = opened(request)
        with pytest.raises(NameFailed, match="gone"):
            await balance.handle_async_request(request)
        assert (bottom.requests, state.tried, balance.statistics().replicas) == ([], [], ())
        source.become(A)
        await ask(balance, 1)
        source.become()
        with pytest.raises(NameFailed):
            await balance.handle_async_request(asked())
        assert taken(bottom) == "a"


@pytest.mark.parametrize(("layers", "facts", "counted"), [(Attempt, True, 2), (lambda below: below, False, 1)])
async def test_it_counts_for_the_breaker_as_any_name_that_leads_nowhere_does(
    layers, facts: bool, counted: int, autojump_clock
) -> None:
    """Once for each attempt that it would have been; of a request that belongs to no call, once for all of them."""
    source = Given()
    breaker = Breaker(Retry(Balance(layers(Bottom(answering())), source)), min_requests=4, failure_ratio=0.1)

    async def call() -> int | Kind:
        try:
            request = asked(call_facts(100.0)) if facts else asked()
            return (await breaker.handle_async_request(request)).status_code
        except UpstreamError as error:
            return error.kind

    async with breaker:
        assert await call() is Kind.DNS
        snapshot = breaker.statistics().origins["http://upstream"]
        assert (snapshot.requests, snapshot.failures) == (counted, counted)
        for _ in range(3):
            await call()
        assert breaker.statistics().origins["http://upstream"].state is State.OPEN
        # A probe without a replica opens it anew, one with one closes it.
        await trio.sleep(5)
        assert await call() is Kind.DNS
        with pytest.raises(BreakerOpen):
            await breaker.handle_async_request(asked())
        source.become(A)
        await trio.sleep(5)
        assert await call() == 200
        assert breaker.statistics().origins["http://upstream"].state is State.CLOSED


async def test_an_open_breaker_spares_the_call_its_retries(autojump_clock) -> None:
    breaker = Breaker(Retry(Balance(Bottom(hang), Given()), attempts=10), min_requests=1)
    async with breaker:
        before = trio.current_time()
        with pytest.raises(NameFailed):
            await breaker.handle_async_request(asked(call_facts(100.0)))
        assert trio.current_time() == before


async def test_a_retry_finds_a_replica_that_has_come_meanwhile(autojump_clock) -> None:
    source, bottom = Given(), Bottom(answering())
    async with Retry(Balance(Attempt(bottom), source), backoff=1.0) as layer, trio.open_nursery() as nursery:

        async def call() -> None:
            facts = call_facts(100.0)
            assert (await layer.handle_async_request(asked(facts))).status_code == 200
            assert [(each.replica, each.cause) for each in facts.attempts] == [("http://a", "retry")]

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        source.become(A)


async def test_addresses_that_are_all_refused_are_a_failure_of_kind_connect() -> None:
    class Refusing(Given):
        def missing(self) -> UpstreamError:
            return AddressRefused("every one of them")

    with pytest.raises(AddressRefused) as caught:
        await Balance(Bottom(hang), Refusing()).handle_async_request(asked())
    assert caught.value.kind is Kind.CONNECT


# Its life


async def test_a_source_lives_as_long_as_the_layer() -> None:
    source, bottom = Given(A), Bottom(answering())
    balance = Balance(bottom, source)
    async with balance:
        async with balance:
            assert (source.entered, bottom.entered) == (2, 2)
        assert (source.entered, bottom.entered) == (1, 1)
    assert (source.entered, bottom.entered) == (0, 0)


async def test_cancelled_while_it_waits_for_the_first_set_it_leaves_nothing_entered(autojump_clock) -> None:
    class Slow(Given):
        async def __aenter__(self) -> Self:
            await trio.sleep(10)
            raise AssertionError("it was cancelled before")

    bottom = Bottom(answering())
    with trio.move_on_after(1) as scope:
        async with Balance(bottom, Slow()):
            raise AssertionError("it cannot be entered")
    assert scope.cancelled_caught
    assert bottom.entered == 0


# All together

SETS = st.lists(st.lists(st.sampled_from([A, B, C]), unique=True), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(SETS, st.sampled_from(["p2c", "round_robin", "weighted"]), st.integers(0, 2**32))
def test_whatever_changes_under_load_nobody_loses_count(sets: list[list[Replica]], policy, seed: int) -> None:
    rng = random.Random(seed)

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(rng.random())
        if rng.random() < 0.3:
            raise ConnectFailed("no")
        return httpx.Response(200, stream=Pieces()) if rng.random() < 0.5 else complete(503)

    async def call(balance: Balance) -> None:
        with trio.move_on_after(rng.random() * 1.5):
            with suppress(ConnectFailed, NameFailed):
                response = await balance.handle_async_request(asked(call_facts(1.0)))
                try:
                    await response.aread()
                finally:
                    await response.aclose()

    async def main() -> None:
        source = Given()

        class Seeing(Bottom):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                assert request.url.host in {replica.url.host for replica in source.replicas}
                return await super().handle_async_request(request)

        async with Balance(Seeing(act), source, policy=policy, rng=rng) as balance:
            async with trio.open_nursery() as nursery:
                for replicas in sets:
                    source.become(*replicas)
                    for _ in range(10):
                        nursery.start_soon(call, balance)
                        await trio.sleep(0.02)
                        assert all(each.in_flight >= 0 for each in balance.statistics().replicas)
            statistics = balance.statistics().replicas
            assert [each.name for each in statistics] == [each.name for each in sets[-1]]
            assert all((each.in_flight, each.failed <= each.taken) == (0, True) for each in statistics)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
