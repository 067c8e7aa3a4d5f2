from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from functools import partial

import httpx
import pytest
import trio

from tests.support.layers import Bottom, Pieces, answering, asked, call_facts, complete, hang, raising
from umbel.policy.ejection import EjectionRules
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance, ReplicaStatistics
from umbel.upstream.ending import CLIENT_GONE, LOST
from umbel.upstream.errors import BadRequest, BudgetSpent, ConnectFailed, TooBig
from umbel.upstream.origin import REPLICA, Origin, Replica, origin_of
from umbel.upstream.state import CallState, Cause, opened

A, B, C = "http://a", "http://b", "http://c"


def taken(bottom: Bottom) -> list[str]:
    """The hosts that were asked, in order."""
    return [request.url.host for request in bottom.requests]


def of(balance: Balance, place: int) -> ReplicaStatistics:
    return balance.statistics().replicas[place]


async def test_replicas_take_turns_and_each_gives_url_host_and_base() -> None:
    bottom = Bottom(answering())
    balance = Balance(bottom, ["http://a:81/base", "https://[::1]", "unix:/run/x.sock"], policy="round_robin")
    request = httpx.Request(
        "GET", "http://upstream", headers={"host": "evil", "x-a": "1"}, extensions={"target": b"/t?q"}
    )
    for _ in range(4):
        await balance.handle_async_request(request)
    seen = [
        (str(each.url), each.headers.get_list("host"), each.extensions["target"], each.extensions[REPLICA].origin)
        for each in bottom.requests
    ]
    assert seen == [
        ("http://a:81/", ["a:81"], b"/base/t?q", Origin("http", "a", 81)),
        ("https://[::1]/", ["[::1]"], b"/t?q", Origin("https", "::1", 443)),
        ("http://localhost", ["localhost"], b"/t?q", Origin("http", "localhost", 80, "/run/x.sock")),
        ("http://a:81/", ["a:81"], b"/base/t?q", Origin("http", "a", 81)),
    ]
    assert [each.taken for each in balance.statistics().replicas] == [2, 1, 1]
    assert all(each.headers["x-a"] == "1" for each in bottom.requests)


async def test_the_request_that_it_was_given_stays_as_it_was() -> None:
    request = httpx.Request("POST", "http://upstream/p?q=1", content=b"body")
    bottom = Bottom(answering())
    await Balance(bottom, [A]).handle_async_request(request)
    assert (str(request.url), request.headers["host"], request.extensions) == (
        "http://upstream/p?q=1",
        "upstream",
        {},
    )
    assert bottom.requests[0].extensions["target"] == b"/p?q=1"
    assert bottom.requests[0].read() == b"body"


async def test_by_default_the_less_busy_of_two_is_taken(autojump_clock) -> None:
    bottom = Bottom(answering(after=1.0))
    balance = Balance(bottom, [A, B], rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(balance.handle_async_request, asked())
            await trio.sleep(0.01)
            assert abs(of(balance, 0).in_flight - of(balance, 1).in_flight) == (number + 1) % 2
    assert Counter(taken(bottom)) == {"a": 5, "b": 5}
    assert (of(balance, 0).in_flight, of(balance, 0).usual) == (0, 1.0)


async def test_a_slow_replica_gets_less(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1.0 if request.url.host == "b" else 0.1)
        return complete()

    bottom = Bottom(act)
    balance = Balance(bottom, [A, B], rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(balance.handle_async_request, asked())
            await trio.sleep(0.01)
    assert Counter(taken(bottom))["b"] < 150


async def test_a_replica_that_fails_at_once_draws_no_traffic(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        if request.url.host == "b":
            raise ConnectFailed("refused")
        await trio.sleep(0.1)
        return complete()

    bottom = Bottom(act)
    balance = Balance(bottom, [A, B], ejection=None, rng=random.Random(1))

    async def ask() -> None:
        with suppress(ConnectFailed):
            await balance.handle_async_request(asked())

    async with trio.open_nursery() as nursery:
        for _ in range(2000):
            nursery.start_soon(ask)
            await trio.sleep(0.005)
    # It is asked again whenever its last failure is a tenth of a second old, for ten seconds.
    assert 80 <= Counter(taken(bottom))["b"] <= 120


async def test_weights_are_kept() -> None:
    bottom = Bottom(answering())
    balance = Balance(bottom, [A, B, C], policy="weighted", weights=[5, 3, 2])
    for _ in range(20):
        await balance.handle_async_request(asked())
    assert Counter(taken(bottom)) == {"a": 10, "b": 6, "c": 4}


@pytest.mark.parametrize(
    "options",
    [{"policy": "weighted"}, {"weights": [1, 2]}, {"policy": "weighted", "weights": [1]}],
)
def test_weights_and_policy_must_fit(options) -> None:
    with pytest.raises(ValueError, match="weight"):
        Balance(Bottom(hang), [A, B], **options)
    with pytest.raises(ValueError, match="there must be a replica"):
        Balance(Bottom(hang), [])


async def test_no_replica_is_taken_twice_by_a_call_while_another_is_left() -> None:
    bottom = Bottom(answering())
    for policy in ("p2c", "round_robin"):
        balance = Balance(bottom, [A, B, C], policy=policy)
        for _ in range(30):
            request = asked()
            bottom.requests.clear()
            request, state = opened(request)
            for _ in range(4):
                await balance.handle_async_request(request)
            assert set(taken(bottom)[:3]) == {"a", "b", "c"}
            assert len(state.tried) == 4


async def test_a_call_that_others_do_not_follow_keeps_no_list() -> None:
    bottom = Bottom(answering())
    await Balance(bottom, [A]).handle_async_request(asked())
    assert CallState().tried == []
    assert "umbel.state" not in bottom.requests[0].extensions


@pytest.mark.parametrize("failing", [answering(503), raising(lambda: ConnectFailed("refused"))])
async def test_five_failures_in_a_row_leave_a_replica_out_for_thirty_seconds(failing, autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        return await failing(request) if request.url.host == "b" else complete()

    bottom = Bottom(act)
    balance = Balance(bottom, [A, B], policy="round_robin")

    async def ask(number: int) -> Counter[str]:
        bottom.requests.clear()
        for _ in range(number):
            with suppress(ConnectFailed):
                await balance.handle_async_request(asked())
        return Counter(taken(bottom))

    assert await ask(10) == {"a": 5, "b": 5}
    assert of(balance, 1).ejected_for == 30.0
    assert (balance.statistics().ejections, of(balance, 1).failed) == (1, 5)
    assert await ask(10) == {"a": 10}
    await trio.sleep(30)
    assert await ask(10) == {"a": 5, "b": 5}
    assert of(balance, 1).ejected_for == 60.0


async def test_the_last_replica_is_used_however_it_fails() -> None:
    bottom = Bottom(answering(500))
    for replicas in ([A], [A, B]):
        balance = Balance(bottom, replicas, ejection=EjectionRules(failures=1, share=1.0))
        for _ in range(20):
            assert (await balance.handle_async_request(asked())).status_code == 500
        assert balance.statistics().ejections == len(replicas) - 1


@pytest.mark.parametrize(
    "make", [lambda: TooBig("big"), lambda: BadRequest("bad"), lambda: BudgetSpent("late"), lambda: RuntimeError("bug")]
)
async def test_what_does_not_count_against_an_upstream_does_not_against_its_replica(make) -> None:
    balance = Balance(Bottom(raising(make)), [A, B])
    for _ in range(20):
        with pytest.raises(type(make())):
            await balance.handle_async_request(asked())
    assert balance.statistics().ejections == 0
    assert [each.in_flight for each in balance.statistics().replicas] == [0, 0]


async def _cut(balance: Balance, after: float, reason: str, budget: float) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(balance.handle_async_request, asked(call_facts(budget)))
            await trio.sleep(after)
            scope.cancel(reason=reason)


@pytest.mark.parametrize("layers", [lambda bottom: bottom, Attempt])
async def test_only_a_cancel_that_is_a_timeout_counts(layers, autojump_clock) -> None:
    balance = Balance(layers(Bottom(hang)), [A, B], policy="round_robin")
    for reason in (CLIENT_GONE, "a sibling failed", "a hedge won"):
        for _ in range(10):
            await _cut(balance, 5.0, reason, budget=10.0)
    assert [(each.failed, each.in_flight) for each in balance.statistics().replicas] == [(0, 0), (0, 0)]
    for _ in range(9):
        await _cut(balance, 1.0, "deadline", budget=1.0)
    assert (of(balance, 0).failed, of(balance, 0).ejected_for) == (5, 30.0)
    assert of(balance, 1).failed == 4


@pytest.mark.parametrize(("error", "failed"), [(None, 0), (httpx.ReadError("broke"), 1)])
async def test_a_streamed_response_is_in_flight_until_it_is_closed(error: Exception | None, failed: int) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces(error))

    balance = Balance(Bottom(act), [A])
    async with httpx.AsyncClient(transport=balance) as client:
        async with client.stream("GET", "http://upstream") as response:
            assert of(balance, 0).in_flight == 1
            try:
                await response.aread()
            except httpx.ReadError:
                assert error is not None
        assert (of(balance, 0).in_flight, of(balance, 0).failed) == (0, failed)


async def test_entering_it_enters_what_is_below() -> None:
    bottom = Bottom(hang)
    async with Balance(bottom, [A]):
        assert bottom.entered == 1
    assert bottom.entered == 0


async def test_standing_at_work_it_takes_many_at_once_without_losing_count(autojump_clock) -> None:
    rng = random.Random(7)

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(rng.random())
        if rng.random() < 0.2:
            raise ConnectFailed("no")
        return complete(503 if rng.random() < 0.2 else 200)

    balance = Balance(Bottom(act), [A, B, C], rng=rng)

    async def ask() -> None:
        with trio.move_on_after(rng.random() * 1.5):
            with suppress(ConnectFailed):
                await balance.handle_async_request(asked(call_facts(1.0)))

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(ask)
            await trio.sleep(0.001)
    statistics = balance.statistics().replicas
    assert [each.in_flight for each in statistics] == [0, 0, 0]
    assert sum(each.taken for each in statistics) == 500


def test_the_servers_name_is_for_https_alone() -> None:
    parse = partial(Replica.parse, server_name="b")
    assert parse("https://a").origin.sni == "b"
    assert parse("http://a").origin.sni is None


def test_names_are_idna_and_schemes_are_two() -> None:
    assert origin_of(httpx.URL("http://bücher.example")) == Origin("http", "xn--bcher-kva.example", 80)
    assert origin_of(httpx.URL("https://a")).where == "a:443"
    for url in ("ftp://a", "/a", "http://", "ws://a"):
        with pytest.raises(BadRequest):
            origin_of(httpx.URL(url))


@pytest.mark.parametrize(
    ("cause", "reason", "next_to_the_other"),
    [("first", LOST, True), ("retry", LOST, True), ("hedge", LOST, False), ("first", CLIENT_GONE, False)],
)
async def test_a_replica_whose_attempt_was_overtaken_counts_as_busy_for_a_while(
    cause: Cause, reason: str, next_to_the_other: bool, autojump_clock
) -> None:
    bottom = Bottom(hang)
    balance = Balance(bottom, [A, B], rng=random.Random(1))
    request = asked()
    request, state = opened(request)
    with trio.CancelScope() as scope:
        state.cause = cause
        async with trio.open_nursery() as nursery:
            nursery.start_soon(balance.handle_async_request, request)
            await trio.sleep(1.0)
            scope.cancel(reason=reason)
    first = taken(bottom)[0]
    bottom.act = answering()
    for _ in range(20):
        await balance.handle_async_request(asked())
    assert (first not in taken(bottom)[1:]) is next_to_the_other
    await trio.sleep(1.0)
    for _ in range(20):
        await balance.handle_async_request(asked())
    assert first in taken(bottom)[1:]
