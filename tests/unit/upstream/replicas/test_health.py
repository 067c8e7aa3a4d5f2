"""Health checks: schedule, thresholds, internal errors, and a set of replicas that changes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import httpx
import pytest
import trio
import trio.testing

from tests.support.logs.records import Records
from tests.support.upstream.memory_hosts import Act, Hosts, Unreachable, answering, failing, hang, in_pieces
from tests.support.upstream.replica_sources import ChangingReplicas
from umbel.core.errors import NotRunningError
from umbel.upstream import HealthRules, Transport
from umbel.upstream.errors import ConnectFailed, ReadTimedOut
from umbel.upstream.pool.pool import Pool
from umbel.upstream.replicas.health import BODY_MAX, HealthChecker
from umbel.upstream.replicas.origin import Replica

A, B = "http://a/base", "http://b"


class AtOnce(random.Random):
    """Random source that always gives 0: every first check comes at once."""

    def random(self) -> float:
        return 0.0


@asynccontextmanager
async def checking(hosts: Hosts, replicas=(A, B), **options) -> AsyncIterator[HealthChecker]:
    """Checks of these replicas; at the end nothing of them is under way."""
    async with Pool(dial=hosts) as pool:
        async with HealthChecker(pool, replicas, path="/health?deep=1", rng=AtOnce(), **options) as health:
            yield health
        assert (pool.statistics().active, pool.statistics().connecting) == (0, 0)


async def test_each_replica_gets_a_check_under_its_base_path_every_five_seconds(
    nursery: trio.Nursery, autojump_clock
) -> None:
    hosts = Hosts(nursery, a=answering(), b=answering())
    async with checking(hosts):
        await trio.sleep(12)
    assert hosts.times == {"a": [0, 5, 10], "b": [0, 5, 10]}
    asked = next(each for each in hosts.asked if each.origin.host == "a")
    assert asked.line == "GET /base/health?deep=1 HTTP/1.1"
    assert asked.origin == Replica.parse(A).origin
    assert b"Host: a" in asked.lines


async def test_first_checks_are_spread_over_the_interval(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, **{f"h{number}": answering() for number in range(40)})
    urls = [f"http://{host}" for host in hosts.acts]
    async with Pool(dial=hosts) as pool, HealthChecker(pool, urls, rng=random.Random(1)):
        await trio.sleep(4.99)
    firsts = [times[0] for times in hosts.times.values()]
    assert len(firsts) == len(set(firsts)) >= 39
    assert max(firsts) - min(firsts) > 4


@pytest.mark.parametrize(
    "bad",
    [
        answering(503),
        answering(301),
        answering(404),
        in_pieces(b"x" * (BODY_MAX // 3 + 1)),
        in_pieces(broken=True),
        failing(ConnectFailed("no")),
        failing(ReadTimedOut("slow")),
        hang,
    ],
)
async def test_three_failed_checks_take_a_replica_down_and_two_passed_bring_it_back(
    bad: Act | Unreachable, nursery: trio.Nursery, autojump_clock
) -> None:
    hosts, records = Hosts(nursery, a=in_pieces(), b=bad), Records()
    async with checking(hosts, recorder=records) as health:
        await trio.sleep(9.9)
        assert health.down == frozenset()
        await trio.sleep(5.2)  # A check that hangs ends when the next one is due.
        assert health.down == {B}
        statistics = health.statistics().replicas
        assert [(each.name, each.up) for each in statistics] == [(A, True), (B, False)]
        assert statistics[1].failures == (3 if bad is hang else 4)
        hosts.acts["b"] = answering(204, body=b"")
        await trio.sleep(5)
        assert health.down == {B}
        await trio.sleep(5)
        assert health.down == frozenset()
    assert [(note.level, note.event) for note in records.logged] == [("warning", "health.down"), ("info", "health.up")]
    assert "http://b" in records.logged[0].message


async def test_thresholds_and_interval_can_be_set(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=answering(), b=answering(500))
    async with checking(hosts, every=1.0, healthy=1, unhealthy=1) as health:
        await trio.sleep(0.1)
        assert health.down == {B}
        hosts.acts["b"] = answering()
        await trio.sleep(1)
        assert health.down == frozenset()


async def test_a_slow_check_does_not_delay_the_checks_of_other_replicas(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=answering(), b=answering(after=4.0))
    async with checking(hosts) as health:
        await trio.sleep(21)
        assert health.down == frozenset()
    assert hosts.times == {"a": [0, 5, 10, 15, 20], "b": [0, 5, 10, 15, 20]}


@pytest.mark.parametrize("error", [RuntimeError("bug"), NotRunningError("the pool is closed")])
async def test_after_an_internal_error_the_checks_go_on_after_a_growing_pause(
    error: Exception, nursery: trio.Nursery, autojump_clock
) -> None:
    hosts, records = Hosts(nursery, a=answering(), b=failing(error)), Records()
    async with checking(hosts, recorder=records) as health:
        await trio.sleep(8)
        assert hosts.times["b"] == [0, 1, 3, 7]
        assert health.down == frozenset()
        assert health.statistics().replicas[1].crashes == 4
        await trio.sleep(1000)
        times = hosts.times["b"]
        assert max(later - earlier for earlier, later in pairwise(times)) == 60
        hosts.acts["b"] = answering()
        await trio.sleep(70)
        hosts.acts["b"] = failing(error)
        begun = len(hosts.times["b"])
        await trio.sleep(7)
        # A check that passes resets the pause.
        crashed, again = hosts.times["b"][begun:][:2]
        assert again - crashed == 1
    assert hosts.times["a"] == [5.0 * number for number in range(len(hosts.times["a"]))]
    assert {(note.level, note.event) for note in records.logged} == {("error", "health.crashed")}
    assert type(records.logged[0].error) is type(error)


async def test_health_checks_entered_twice_end_with_the_outermost_exit(nursery: trio.Nursery, autojump_clock) -> None:
    hosts = Hosts(nursery, a=answering(), b=answering())
    async with Pool(dial=hosts) as pool:
        health = HealthChecker(pool, [A, B], rng=AtOnce())
        async with health:
            async with health:
                await trio.sleep(1)
            await trio.sleep(5)
        await trio.sleep(100)
        assert hosts.times == {"a": [0, 5], "b": [0, 5]}
        # And once more, from the beginning.
        async with health:
            await trio.sleep(1)
    assert hosts.times["a"] == [0, 5, 106]


async def test_an_exception_of_the_block_is_raised_without_a_group(nursery: trio.Nursery, autojump_clock) -> None:
    with pytest.raises(RuntimeError, match="of the block"):
        async with checking(Hosts(nursery, a=hang, b=hang)):
            await trio.sleep(1)
            raise RuntimeError("of the block")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0.0}, "more than 0 seconds"), ({"healthy": 0}, "at least 1"), ({"unhealthy": 0}, "at least 1")],
)
def test_invalid_numbers_are_refused_before_there_is_a_replica(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HealthChecker(Pool(), ChangingReplicas(), **options)
    with pytest.raises(ValueError, match="at least one replica"):
        HealthChecker(Pool(), [])


# Traffic beside the checks


def traffic(transport: Transport, hosts: Hosts) -> Callable[[], Awaitable[set[str]]]:
    """What makes ten requests, and gives the names of the hosts that got them."""

    async def seen() -> set[str]:
        before = len(hosts.asked)
        for _ in range(10):
            await transport.handle_async_request(httpx.Request("GET", "http://x/traffic"))
        return {each.origin.host for each in hosts.asked[before:] if "/traffic" in each.line}

    return seen


async def test_a_replica_that_is_down_gets_no_traffic_unless_all_are_down(
    nursery: trio.Nursery, autojump_clock
) -> None:
    hosts = Hosts(nursery, a=answering(), b=answering(503))
    rules = {"balance": "round_robin", "health": HealthRules("/health"), "rng": AtOnce()}
    async with Transport([A, B], dial=hosts, **rules) as transport:
        seen = traffic(transport, hosts)
        await trio.testing.wait_all_tasks_blocked()
        assert [each.taken for each in transport.statistics().balance.replicas] == [0, 0], "a check is no attempt"
        await trio.sleep(10.1)
        assert await seen() == {"a"}
        assert [each.up for each in transport.statistics().balance.replicas] == [True, False]
        hosts.acts["a"] = answering(503)
        await trio.sleep(15)
        assert await seen() == {"a", "b"}
        assert [each.up for each in transport.statistics().balance.replicas] == [False, False]
    asked = len(hosts.asked)
    await trio.sleep(100)
    assert len(hosts.asked) == asked


# Replicas that come and go


def changing(*hosts: str) -> tuple[ChangingReplicas, Callable[..., None]]:
    """A source of these hosts, and what makes it one of others."""
    source = ChangingReplicas(*(Replica.parse(f"http://{host}") for host in hosts))

    def become(*hosts: str) -> None:
        known = {replica.url.host: replica for replica in source.replicas}
        source.become(*(known.get(host) or Replica.parse(f"http://{host}") for host in hosts))

    return source, become


async def test_new_replicas_are_checked_and_replicas_that_left_are_not(nursery: trio.Nursery, autojump_clock) -> None:
    source, become = changing("a")
    hosts = Hosts(nursery, a=answering(), b=answering())
    async with checking(hosts, source) as health:
        await trio.sleep(7)
        become("a", "b")
        await trio.sleep(6)
        become("b")
        await trio.sleep(5)
        assert [each.name for each in health.statistics().replicas] == ["http://b"]
        become()
        await trio.sleep(100)
        assert health.statistics().replicas == ()
    # A replica that stays keeps its schedule.
    assert hosts.times == {"a": [0, 5, 10], "b": [7, 12, 17]}


async def test_the_check_of_a_replica_that_leaves_is_cancelled(nursery: trio.Nursery, autojump_clock) -> None:
    source, become = changing("a", "b")
    hosts, records = Hosts(nursery, a=answering(), b=hang), Records()
    async with checking(hosts, source, unhealthy=1, recorder=records) as health:
        await trio.sleep(1)
        assert hosts.under_way == 1
        become("a")
        await trio.testing.wait_all_tasks_blocked()
        assert hosts.under_way == 0
        await trio.sleep(100)
        assert health.down == frozenset()
    assert records.logged == []


async def test_a_replica_that_stays_keeps_its_health_and_one_that_returns_begins_as_up(
    nursery: trio.Nursery, autojump_clock
) -> None:
    source, become = changing("a", "b")
    hosts = Hosts(nursery, a=answering(), b=answering(503), c=answering())
    async with checking(hosts, source) as health:
        await trio.sleep(11)
        assert health.down == {B}
        become("c", "b")
        await trio.sleep(1)
        assert health.down == {B}
        assert [each.checks for each in health.statistics().replicas] == [1, 3]
        become("c")
        await trio.testing.wait_all_tasks_blocked()
        assert health.down == frozenset()
        become("c", "b")
        await trio.sleep(9)
        assert health.down == frozenset()
        await trio.sleep(2)
        assert health.down == {B}


async def test_traffic_follows_the_checks_of_a_set_that_changes(nursery: trio.Nursery, autojump_clock) -> None:
    source, become = changing("a", "b")
    hosts = Hosts(nursery, a=answering(), b=answering(503), c=answering(503))
    rules = {"balance": "round_robin", "health": HealthRules("/health"), "rng": AtOnce()}
    async with Transport(source, dial=hosts, **rules) as transport:
        seen = traffic(transport, hosts)
        assert source.entered == 2
        await trio.sleep(11)
        assert await seen() == {"a"}
        become("b", "a", "c")  # The order changes; the replica that is down is the same.
        assert await seen() == {"a", "c"}
        await trio.sleep(11)
        assert await seen() == {"a"}
        become("b", "c")
        assert await seen() == {"b", "c"}, "all are down, so all are used"
        hosts.acts["b"] = answering()
        await trio.sleep(10)
        replicas = transport.statistics().balance.replicas
        assert [(each.name, each.up) for each in replicas] == [("http://b", True), ("http://c", False)]
        assert await seen() == {"b"}
    assert source.entered == 0
