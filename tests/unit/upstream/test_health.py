from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
import trio
import trio.testing

from tests.support.layers import Act, Bottom, Pieces, answering, asked, hang, raising
from tests.support.records import Records
from tests.support.sources import Given
from umbel.errors import NotRunningError
from umbel.upstream.balance import Balance
from umbel.upstream.errors import ConnectFailed
from umbel.upstream.health import Health
from umbel.upstream.origin import REPLICA, Replica

A, B = "http://a/base", "http://b"


class Sites:
    """What each host does, and when it was asked."""

    def __init__(self, **acts: Act) -> None:
        self.acts = acts
        self.times: dict[str, list[float]] = {}
        self.bottom = Bottom(self)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times.setdefault(request.url.host, []).append(trio.current_time())
        return await self.acts[request.url.host](request)


class AtOnce(random.Random):
    """Chance that always says 0: every first check comes at once."""

    def random(self) -> float:
        return 0.0


def checks(sites: Sites, **options) -> Health:
    return Health(sites.bottom, [A, B], path="/health?deep=1", rng=AtOnce(), **options)


async def test_each_replica_is_asked_for_the_path_under_its_base_every_five_seconds(autojump_clock) -> None:
    sites = Sites(a=answering(), b=answering())
    async with checks(sites):
        await trio.sleep(12)
    assert sites.times == {"a": [0, 5, 10], "b": [0, 5, 10]}
    request = next(each for each in sites.bottom.requests if each.url.host == "a")
    assert request.method == "GET"
    assert request.extensions["target"] == b"/base/health?deep=1"
    assert request.extensions[REPLICA] == Replica.parse(A)
    assert request.headers["host"] == "a"


async def test_first_checks_are_spread_over_the_interval(autojump_clock) -> None:
    sites = Sites(**{f"h{number}": answering() for number in range(40)})
    health = Health(sites.bottom, [f"http://{host}" for host in sites.acts], rng=random.Random(1))
    async with health:
        await trio.sleep(4.99)
    firsts = [times[0] for times in sites.times.values()]
    assert len(firsts) == len(set(firsts)) >= 39
    assert max(firsts) - min(firsts) > 4


@pytest.mark.parametrize(
    "bad",
    [
        answering(503),
        answering(301),
        answering(404),
        raising(lambda: ConnectFailed("no")),
        raising(lambda: httpx.ReadTimeout("slow")),
        hang,
    ],
)
async def test_three_failed_checks_take_a_replica_down_and_two_passed_bring_it_back(bad: Act, autojump_clock) -> None:
    sites = Sites(a=answering(), b=bad)
    records = Records()
    async with checks(sites, recorder=records) as health:
        await trio.sleep(9.9)
        assert health.down == frozenset()
        await trio.sleep(5.2)  # A check that hangs is over when the next is due.
        assert health.down == {B}
        statistics = health.statistics().replicas
        assert [(each.name, each.up) for each in statistics] == [(A, True), (B, False)]
        assert statistics[1].failures == (3 if bad is hang else 4)
        sites.acts["b"] = answering(204)
        await trio.sleep(5)
        assert health.down == {B}
        await trio.sleep(5)
        assert health.down == frozenset()
    assert [(note.level, note.event) for note in records.notes] == [("warning", "health.down"), ("info", "health.up")]
    assert "http://b" in records.notes[0].message


async def test_a_replica_that_is_down_gets_no_traffic_and_if_all_are_all_get_it(autojump_clock) -> None:
    sites = Sites(a=answering(), b=answering(503))
    traffic = Bottom(answering())
    async with Balance(traffic, [A, B], policy="round_robin", health=checks(sites)) as balance:
        await trio.sleep(10.1)
        for _ in range(10):
            await balance.handle_async_request(asked())
        assert Counter(each.url.host for each in traffic.requests) == {"a": 10}
        assert [each.up for each in balance.statistics().replicas] == [True, False]
        sites.acts["a"] = answering(503)
        await trio.sleep(15)
        traffic.requests.clear()
        for _ in range(10):
            await balance.handle_async_request(asked())
        assert Counter(each.url.host for each in traffic.requests) == {"a": 5, "b": 5}
        assert [each.up for each in balance.statistics().replicas] == [False, False]
        assert traffic.entered == 1
    assert traffic.entered == 0
    asked_for = len(sites.bottom.requests)
    await trio.sleep(100)
    assert len(sites.bottom.requests) == asked_for


async def test_thresholds_and_interval_may_be_others(autojump_clock) -> None:
    sites = Sites(a=answering(), b=answering(500))
    async with checks(sites, every=1.0, healthy=1, unhealthy=1) as health:
        await trio.sleep(0.1)
        assert health.down == {B}
        sites.acts["b"] = answering()
        await trio.sleep(1)
        assert health.down == frozenset()
    for bad in ({"every": 0.0}, {"healthy": 0}):
        with pytest.raises(ValueError, match="check"):
            checks(sites, **bad)


async def test_a_slow_check_does_not_delay_those_of_others(autojump_clock) -> None:
    sites = Sites(a=answering(), b=answering(after=4.0))
    async with checks(sites) as health:
        await trio.sleep(21)
        assert health.down == frozenset()
    assert sites.times == {"a": [0, 5, 10, 15, 20], "b": [0, 5, 10, 15, 20]}
    assert sites.bottom.in_flight == 0


@pytest.mark.parametrize("make", [lambda: RuntimeError("bug"), lambda: NotRunningError("the pool is closed")])
async def test_an_error_of_ours_is_recorded_and_the_checks_go_on_after_a_growing_pause(
    make: Callable[[], Exception], autojump_clock
) -> None:
    sites = Sites(a=answering(), b=raising(make))
    records = Records()
    async with checks(sites, recorder=records) as health:
        await trio.sleep(8)
        assert sites.times["b"] == [0, 1, 3, 7]
        assert health.down == frozenset()
        assert health.statistics().replicas[1].crashes == 4
        await trio.sleep(1000)
        assert (
            max(later - earlier for earlier, later in zip(sites.times["b"], sites.times["b"][1:], strict=False)) == 60
        )
        sites.acts["b"] = answering()
        await trio.sleep(70)
        sites.acts["b"] = raising(make)
        sites.times["b"].clear()
        await trio.sleep(7)
        # One good check, and the pause begins anew.
        crashed, again = sites.times["b"][:2]
        assert again - crashed == 1
    assert sites.times["a"] == [5.0 * number for number in range(len(sites.times["a"]))]
    assert {(note.level, note.event) for note in records.notes} == {("error", "health.crashed")}
    assert isinstance(records.notes[0].error, type(make()))


async def test_a_body_that_nobody_has_read_is_read_and_closed(autojump_clock) -> None:
    streams = []

    async def act(request: httpx.Request) -> httpx.Response:
        streams.append(Pieces(httpx.ReadError("broke") if request.url.host == "b" else None))
        return httpx.Response(200, stream=streams[-1])

    async with checks(Sites(a=act, b=act), unhealthy=1) as health:
        await trio.sleep(1)
        assert health.down == {B}
    assert len(streams) == 2
    assert all(stream.closed for stream in streams)


async def test_it_may_be_entered_again_and_ends_with_the_outermost_exit(autojump_clock) -> None:
    sites = Sites(a=answering(), b=answering())
    health = checks(sites)
    async with health:
        async with health:
            await trio.sleep(1)
        await trio.sleep(5)
    await trio.sleep(100)
    assert sites.times == {"a": [0, 5], "b": [0, 5]}
    # And once more, from the beginning.
    async with health:
        await trio.sleep(1)
    assert sites.times["a"] == [0, 5, 106]


async def test_an_error_in_its_block_comes_out_bare(autojump_clock) -> None:
    with pytest.raises(RuntimeError, match="of the block"):
        async with checks(Sites(a=hang, b=hang)):
            await trio.sleep(1)
            raise RuntimeError("of the block")


async def test_a_check_is_no_attempt() -> None:
    sites = Sites(a=answering(), b=answering())
    traffic = Bottom(answering())
    async with Balance(traffic, [A, B], health=checks(sites)) as balance:
        await trio.testing.wait_all_tasks_blocked()
        assert [each.taken for each in balance.statistics().replicas] == [0, 0]
    assert traffic.requests == []


# Replicas that come and go


def changing(*hosts: str) -> tuple[Sites, Given, Callable[..., None]]:
    """Sites of three hosts, a source of some of them, and what makes it one of others."""
    source = Given(*(Replica.parse(f"http://{host}") for host in hosts))

    def become(*hosts: str) -> None:
        known = {replica.url.host: replica for replica in source.replicas}
        source.become(*(known.get(host) or Replica.parse(f"http://{host}") for host in hosts))

    return Sites(a=answering(), b=answering(), c=answering()), source, become


async def test_who_comes_is_checked_from_then_on_and_who_leaves_no_more(autojump_clock) -> None:
    sites, source, become = changing("a")
    async with Health(sites.bottom, source, rng=AtOnce()) as health:
        await trio.sleep(7)
        become("a", "b")
        await trio.sleep(6)
        become("b")
        await trio.sleep(5)
        assert [each.name for each in health.statistics().replicas] == ["http://b"]
        become()
        await trio.sleep(100)
        assert health.statistics().replicas == ()
    # Who stays keeps its rhythm.
    assert sites.times == {"a": [0, 5, 10], "b": [7, 12, 17]}


async def test_the_check_of_one_that_leaves_is_cancelled(autojump_clock) -> None:
    sites, source, become = changing("a", "b")
    sites.acts["b"] = hang
    records = Records()
    async with Health(sites.bottom, source, rng=AtOnce(), unhealthy=1, recorder=records) as health:
        await trio.sleep(1)
        assert sites.bottom.in_flight == 1
        become("a")
        await trio.testing.wait_all_tasks_blocked()
        assert sites.bottom.in_flight == 0
        await trio.sleep(100)
        assert health.down == frozenset()
    assert records.notes == []


async def test_who_stays_keeps_its_standing_and_who_comes_back_begins_anew(autojump_clock) -> None:
    sites, source, become = changing("a", "b")
    sites.acts["b"] = answering(503)
    async with Health(sites.bottom, source, rng=AtOnce()) as health:
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


async def test_traffic_follows_the_checks_of_a_set_that_changes(autojump_clock) -> None:
    sites, source, become = changing("a", "b")
    sites.acts["b"] = sites.acts["c"] = answering(503)
    traffic = Bottom(answering())
    health = Health(sites.bottom, source, rng=AtOnce())

    async def seen() -> set[str]:
        traffic.requests.clear()
        for _ in range(10):
            await balance.handle_async_request(asked())
        return {request.url.host for request in traffic.requests}

    async with Balance(traffic, source, policy="round_robin", health=health) as balance:
        assert source.entered == 2
        await trio.sleep(11)
        assert await seen() == {"a"}
        become("b", "a", "c")  # The places are others, the one that is down is the same.
        assert await seen() == {"a", "c"}
        await trio.sleep(11)
        assert await seen() == {"a"}
        become("b", "c")
        assert await seen() == {"b", "c"}, "all are down, so all are used"
        sites.acts["b"] = answering()
        await trio.sleep(10)
        assert [(each.name, each.up) for each in balance.statistics().replicas] == [
            ("http://b", True),
            ("http://c", False),
        ]
        assert await seen() == {"b"}
    assert source.entered == 0


async def test_bad_numbers_are_told_of_though_there_is_no_replica_yet() -> None:
    with pytest.raises(ValueError, match="1 at least"):
        Health(Bottom(hang), Given(), healthy=0)
    with pytest.raises(ValueError, match="there must be a replica"):
        Health(Bottom(hang), [])
