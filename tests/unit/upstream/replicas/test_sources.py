"""Joined replica sources: order, weights, entering and leaving."""

from __future__ import annotations

from typing import Self

import pytest
import trio
import trio.testing

from tests.support.upstream.replica_sources import ChangingReplicas
from umbel.upstream.replicas.dns import DnsReplicas
from umbel.upstream.replicas.origin import Replica
from umbel.upstream.replicas.sources import JoinedReplicas, ReplicaSource, source_of

ONE, TWO, THREE, FOUR = (Replica.parse(f"http://replica-{number}") for number in range(1, 5))


def both_are_sources() -> list[ReplicaSource]:
    """Checks the protocol for the type checker."""
    return [JoinedReplicas([ONE]), DnsReplicas("dns+http://users.test")]


async def test_parts_are_joined_in_their_order_with_their_weights(autojump_clock) -> None:
    source = ChangingReplicas(TWO, THREE)
    async with JoinedReplicas([ONE, source, FOUR], [5, 2, 1]) as joined:
        assert joined.replicas == (ONE, TWO, THREE, FOUR)
        assert joined.weights == (5, 2, 2, 1)


async def test_a_change_of_a_part_is_a_change_of_the_set(autojump_clock) -> None:
    source = ChangingReplicas()
    async with JoinedReplicas([ONE, source]) as joined, trio.open_nursery() as nursery:
        seen: list[tuple[Replica, ...]] = []

        async def watch() -> None:
            for _ in range(2):
                replicas, _ = await joined.changes.wait_transition()
                seen.append(replicas)

        nursery.start_soon(watch)
        for replicas in ((TWO,), (THREE, FOUR)):
            await trio.testing.wait_all_tasks_blocked()
            source.changes.value = replicas
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [(ONE, TWO), (ONE, THREE, FOUR)]
        assert joined.replicas is seen[-1]
        assert joined.weights == (1, 1, 1)


async def test_a_replica_in_two_parts_is_in_the_set_once(autojump_clock) -> None:
    async with JoinedReplicas([ONE, ChangingReplicas(ONE, TWO)], [3, 1]) as joined:
        assert (joined.replicas, joined.weights) == ((ONE, TWO), (3, 1))


async def test_an_empty_set_gives_its_reason(autojump_clock) -> None:
    async with JoinedReplicas([ChangingReplicas(), ChangingReplicas()]) as joined:
        assert joined.replicas == ()
        assert joined.missing().detail == "gone"


async def test_sources_are_entered_as_long_as_the_set(autojump_clock) -> None:
    sources = ChangingReplicas(ONE), ChangingReplicas(TWO)
    joined = JoinedReplicas(sources)
    async with joined:
        async with joined:
            assert [source.entered for source in sources] == [1, 1]
        assert [source.entered for source in sources] == [1, 1]
    assert [source.entered for source in sources] == [0, 0]


async def test_sets_may_be_nested(autojump_clock) -> None:
    source = ChangingReplicas(ONE)
    async with JoinedReplicas([JoinedReplicas([source]), JoinedReplicas([TWO])]) as joined:
        assert joined.replicas == (ONE, TWO)
        source.become(THREE)
        await trio.testing.wait_all_tasks_blocked()
        assert joined.replicas == (THREE, TWO)
    assert source.entered == 0


async def test_sources_are_entered_concurrently(autojump_clock) -> None:
    class Slow(ChangingReplicas):
        async def __aenter__(self) -> Self:
            await trio.sleep(1)
            return await super().__aenter__()

    sources = [Slow(each) for each in (ONE, TWO, THREE)]
    async with JoinedReplicas([FOUR, *sources]) as joined:
        assert trio.current_time() == 1.0
        assert joined.replicas == (FOUR, ONE, TWO, THREE)
    assert [source.entered for source in sources] == [0, 0, 0]


async def test_a_source_that_cannot_be_entered_fails_the_set_and_the_others_are_left(autojump_clock) -> None:
    class Broken(ChangingReplicas):
        async def __aenter__(self) -> Self:
            await trio.sleep(1)
            raise RuntimeError("no name server at all")

    source = ChangingReplicas(ONE)
    joined = JoinedReplicas([source, Broken(TWO)])
    with pytest.raises(RuntimeError, match="no name server at all"):
        async with joined:
            raise AssertionError("it cannot be entered")
    assert source.entered == 0


async def test_a_source_given_twice_is_entered_once(autojump_clock) -> None:
    source = ChangingReplicas(ONE)
    async with JoinedReplicas([source, TWO, source]) as joined:
        assert (source.entered, joined.replicas) == (1, (ONE, TWO))


async def test_a_cancel_while_entering_leaves_no_source_running(autojump_clock) -> None:
    class Slow(ChangingReplicas):
        async def __aenter__(self) -> Self:
            await trio.sleep(10)
            return await super().__aenter__()

    sources = ChangingReplicas(ONE), Slow(TWO)
    with trio.move_on_after(1) as scope:
        async with JoinedReplicas(sources):
            raise AssertionError("it cannot be entered")
    assert scope.cancelled_caught
    assert [source.entered for source in sources] == [0, 0]


def test_a_number_of_weights_that_differs_from_the_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        JoinedReplicas([ONE, TWO], [1])


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://users.test",
            "users.test",
            "dns+users.test",
            "dns+unix:/run/x",
            "dns+ftp://users.test",
            "dns+http://",
        ),
        *("dns+http://127.0.0.1:80", "dns+http://[::1]:80", "dns+http://.", "DNS+http://users.test"),
    ],
)
def test_a_dns_url_without_a_host_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^replicas from DNS need"):
        DnsReplicas(url)


def test_a_weight_of_less_than_one_is_refused() -> None:
    for weights in ([1, 0], [-1, 1]):
        with pytest.raises(ValueError, match="at least 1"):
            JoinedReplicas([ONE, TWO], weights)


def test_a_union_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        JoinedReplicas([])
    with pytest.raises(ValueError, match="at least one replica"):
        JoinedReplicas([], [])


def test_source_of_returns_a_source_for_a_list_or_a_source() -> None:
    fixed = source_of(["http://replica-1", TWO], [2, 1])
    assert (fixed.replicas, fixed.weights) == ((ONE, TWO), (2, 1))
    source = ChangingReplicas(ONE)
    assert source_of(source) is source
    with pytest.raises(ValueError, match="weights of its own"):
        source_of(source, [1])
    with pytest.raises(ValueError, match="at least one replica"):
        source_of([])
