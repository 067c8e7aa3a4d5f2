"""The express way is the ordinary way, only cheaper: what breaks, what runs out, retries and breakers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.bothways import (
    BUSY,
    ONE,
    Case,
    Lab,
    Seen,
    Step,
    assert_nothing_left,
    both_ways,
    laboratory,
    plain_result,
)
from tests.support.endings import (
    after,
    fin,
    hang,
    hang_in_the_body,
    hang_in_the_head,
    reset,
    reset_in_the_body,
    reset_in_the_head,
)
from tests.support.rawserver import Peer, response
from tests.support.sources import Given
from umbel.composition.result import Result
from umbel.kinds import Kind
from umbel.upstream.origin import Replica

TWO = {"a": {}, "b": {}}
TWO_OPTIONAL: dict[str, Any] = {"a": {"optional": True}, "b": {"optional": True}}
Run = Callable[[], Awaitable[Result | None]]


@pytest.fixture
def jumping(mock_clock: MockClock) -> MockClock:
    """A clock that jumps once nothing has happened for a while: all ends of the sockets are in this very loop."""
    mock_clock.autojump_threshold = 0.005
    return mock_clock


def in_air(seen: Seen) -> int:
    assert seen.way is not None
    return seen.way.in_air


# Connections that break.


async def leave(lab: Lab) -> None:
    """The upstream closes what it kept."""
    for server in lab.servers:
        for peer in server.connections:
            await peer.stream.aclose()
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("warm", [1, 3])
async def test_connections_that_were_closed_while_idle_are_stale(warm: int) -> None:
    seen = await both_ways(Case(warm=warm, before=leave, times=2))
    assert seen.statistics["pool"]["stale"] == warm
    assert (seen.way.carried, in_air(seen)) == (1, 1) if seen.way is not None else False


async def test_one_that_said_something_while_idle_is_stale() -> None:
    async def speak(lab: Lab) -> None:
        await lab.servers[0].connections[0].send(ONE)
        await wait_all_tasks_blocked()

    seen = await both_ways(Case(before=speak))
    assert seen.statistics["pool"]["stale"] == 1


@pytest.mark.parametrize("ends", [reset, fin])
async def test_a_kept_connection_that_ends_as_the_request_arrives_is_replaced(ends: Step) -> None:
    seen = await both_ways(Case([ends, ONE]))
    assert in_air(seen) == 1
    assert seen.statistics["pool"]["replaced"] == 1


@pytest.mark.parametrize("ends", [reset, fin])
async def test_it_is_replaced_by_a_new_one_and_not_by_one_that_may_be_dead_too(ends: Step) -> None:
    seen = await both_ways(Case([ends, ends, ONE], warm=2))
    assert in_air(seen) == 1


@pytest.mark.parametrize("ends", [reset, fin])
@pytest.mark.parametrize("retry", [None, {"attempts": 2}])
async def test_if_the_new_one_ends_too_the_call_fails(ends: Step, retry: Any) -> None:
    await both_ways(Case([ends], upstream={"retry": retry}))


@pytest.mark.parametrize("step", [reset_in_the_head, reset_in_the_body])
@pytest.mark.parametrize("optional", [False, True])
async def test_a_connection_that_breaks_after_a_byte_fails_the_call(step: Step, optional: bool) -> None:
    seen = await both_ways(Case([step], calls={"a": {"optional": optional}}))
    assert in_air(seen) == 1


async def test_an_upstream_that_has_gone_refuses_what_replaces() -> None:
    async def go(lab: Lab, run: Run) -> Result | None:
        for server in lab.servers:
            server.refuse()
        return await run()

    seen = await both_ways(Case([reset], around=go))
    assert in_air(seen) == 1


# Time.


@pytest.mark.parametrize("step", [hang, hang_in_the_head, hang_in_the_body])
@pytest.mark.parametrize("call", [{}, {"timeout": "300ms"}, {"timeout": "2s"}, {"optional": True}], ids=str)
async def test_a_call_without_an_answer_ends_in_time(step: Step, call: dict[str, Any], jumping: MockClock) -> None:
    seen = await both_ways(Case([step], calls={"a": call}, deadline=1.0, upstream={"breaker": {}}))
    assert in_air(seen) == 1
    assert seen.kept == 0


async def test_calls_with_limits_of_their_own_end_each_at_its_time(jumping: MockClock) -> None:
    calls = {
        name: {"timeout": timeout, "optional": True}
        for name, timeout in zip("abc", ("300ms", "100ms", "3s"), strict=True)
    }
    calls["d"] = {"optional": True}
    steps = {"/a": [hang], "/b": [hang], "/c": [after(0.2)], "/d": [after(0.4)]}
    seen = await both_ways(Case(steps, calls=calls, deadline=1.0, warm=4))
    assert in_air(seen) == 4


async def test_a_limit_is_kept_of_a_call_that_begins_while_others_fly(jumping: MockClock) -> None:
    # c waits for b, which has a task: when c begins, the task of the composition waits for a alone.
    calls = {"a": {}, "b": {"method": "POST"}, "c": {"path": "/c/{b.one}", "timeout": "100ms", "optional": True}}
    steps = {"/a": [after(3.0)], "/b": [after(0.1)], "/c": [hang]}
    lasted: list[float] = []

    async def timed(lab: Lab, run: Run) -> Result | None:
        result = await run()
        assert result is not None
        ended = {outcome.call: outcome.ended_at - (outcome.started_at or 0) for outcome in result.outcomes}
        lasted.append(round(ended["c"], 1))
        return result

    seen = await both_ways(Case(steps, calls=calls, warm=3, around=timed))
    assert in_air(seen) == 2
    assert lasted == [0.1, 0.1]


@pytest.mark.parametrize("share", [0.2, 0.7])
async def test_the_deadline_blames_the_upstream_only_of_calls_that_had_half_of_it(
    share: float, jumping: MockClock
) -> None:
    calls = {"a": {}, "b": {"path": "/b/{a.one}"}}
    steps = {"/a": [after(1 - share)], "/b": [hang]}
    seen = await both_ways(Case(steps, calls=calls, deadline=1.0, upstream={"breaker": {}}, warm=2))
    assert in_air(seen) == 2


async def test_an_attempt_that_is_replaced_began_when_it_was_first_sent(jumping: MockClock) -> None:
    async def leave_late(peer: Peer) -> bool:
        await trio.sleep(0.6)
        return False

    async def timed(lab: Lab, run: Run) -> Result | None:
        began, result = trio.current_time(), await run()
        assert result is not None
        (attempt,) = result.outcomes[0].attempts
        assert (round(attempt.started_at - began, 1), attempt.kind) == (0.0, Kind.TIMEOUT)
        return result

    seen = await both_ways(Case([leave_late, hang], deadline=1.0, upstream={"breaker": {}}, around=timed))
    assert in_air(seen) == 1


@pytest.mark.parametrize("reason", ["client-gone", "something else"])
async def test_a_client_that_leaves_cuts_it_all(reason: str, jumping: MockClock) -> None:
    async def cut(lab: Lab, run: Run) -> Result | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel(reason=reason)
        return None

    seen = await both_ways(Case([hang], calls=TWO, warm=2, around=cut))
    assert in_air(seen) == 2
    assert seen.kept == 0


# What one call means to the others.


@pytest.mark.parametrize("route", [{"combine": "first"}, {"combine": "quorum", "quorum": 2}], ids=["first", "quorum"])
async def test_who_is_not_needed_any_more_is_cut(route: dict[str, Any], jumping: MockClock) -> None:
    steps = {"/a": [hang], "/b": [after(0.1)], "/c": [after(0.2)], "/d": [hang_in_the_body]}
    seen = await both_ways(Case(steps, calls={name: {} for name in "abcd"}, route=route, warm=4))
    assert in_air(seen) == 4
    assert seen.statistics["bulkhead"]["in_flight"] == 0
    assert seen.kept <= 2


async def test_a_required_failure_cuts_the_rest(jumping: MockClock) -> None:
    steps = {"/a": [hang], "/b": [after(0.1, response(b"no", status=b"500 No"))]}
    seen = await both_ways(Case(steps, calls=TWO, warm=2))
    assert in_air(seen) == 2
    assert seen.kept == 1


async def test_dependants_fly_when_what_they_name_has_landed() -> None:
    calls: dict[str, Any] = {
        "a": {},
        "b": {"path": "/b/{a.one}"},
        "c": {"path": "/c/{b.one}", "when": "a.one == `1`"},
        "d": {"path": "/d/{c.one}", "when": "a.one == `2`", "default": 5},
        "e": {"path": "/e/{d}"},
        "f": {"path": "/f/{missing.one}", "optional": True},
        "missing": {"optional": True, "default": {"one": 0}},
        "g": {"path": "/g/{lost.one}", "optional": True},
        "lost": {"optional": True},
        "items": {"each": "[a.one, b.one]", "path": "/i/{item}"},
        "bad": {"path": "/x/{a.nothing}", "optional": True},
    }
    steps = {"/missing": [BUSY], "/lost": [BUSY], "/": [ONE]}
    seen = await both_ways(Case(steps, calls=calls, warm=3))
    assert in_air(seen) > 3


# Policies.


@pytest.mark.parametrize(
    "steps",
    [[BUSY, ONE], [BUSY], [fin, fin, ONE], [reset, reset, ONE], [reset_in_the_head, ONE], [BUSY, reset, reset]],
    ids=["503", "503 for ever", "closed", "reset", "after a byte", "and lost"],
)
@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_a_retry_is_the_same(steps: list[Step], attempts: int, jumping: MockClock) -> None:
    seen = await both_ways(Case(steps, upstream={"retry": {"attempts": attempts}, "breaker": {}}))
    assert in_air(seen) == 1


@pytest.mark.parametrize("replicas", [1, 2])
async def test_retries_of_many_calls_spend_the_same_budget(replicas: int, jumping: MockClock) -> None:
    calls = {f"c{n}": {"optional": True} for n in range(8)}
    upstream = {"retry": {"attempts": 3, "backoff": "10ms"}, "retry_budget": "1%", "ejection": False}
    seen = await both_ways(Case([BUSY], calls=calls, upstream=upstream, warm=8, replicas=replicas, alike=True))
    assert in_air(seen) == 8
    assert seen.statistics["budget"]["denied"] > 0


async def test_a_retry_that_would_come_too_late_is_not_made(jumping: MockClock) -> None:
    busy = response(b"no", b"Retry-After: 3", status=b"503 Busy")
    seen = await both_ways(Case([busy], upstream={"retry": {}}, deadline=2.0))
    assert seen.statistics["retry"]["late"] == 1


async def test_the_deadline_ends_the_wait_before_a_retry(jumping: MockClock) -> None:
    busy = response(b"no", b"Retry-After: 1", status=b"503 Busy")
    calls = {"a": {"timeout": "3s"}, "b": {}}
    steps = {"/a": [busy], "/b": [after(0.5, response(b"", status=b"500 No"))]}
    seen = await both_ways(Case(steps, calls=calls, upstream={"retry": {}}, warm=2))
    assert in_air(seen) == 2


@pytest.mark.parametrize("retry", [None, {"attempts": 2, "backoff": "10ms"}])
async def test_a_breaker_opens_after_the_same_calls(retry: Any, jumping: MockClock) -> None:
    upstream = {"breaker": {"min_requests": 3, "open_for": "1s"}, "retry": retry}
    seen = await both_ways(Case([BUSY], upstream=upstream, times=5))
    (state,) = seen.statistics["breaker"]["origins"].values()
    assert state["opened"] == 1
    assert state["refused"] > 0


async def test_a_breaker_probes_the_same_way(jumping: MockClock) -> None:
    async def later(lab: Lab, run: Run) -> Result | None:
        await trio.sleep(0.6)
        return await run()

    upstream = {"breaker": {"min_requests": 2, "open_for": "1s"}}
    seen = await both_ways(Case([BUSY, BUSY, BUSY, hang, ONE], upstream=upstream, times=12, around=later, deadline=0.5))
    (state,) = seen.statistics["breaker"]["origins"].values()
    assert state["state"] == "closed"
    assert in_air(seen) > 2


async def test_a_full_bulkhead_is_waited_for_and_a_full_queue_is_not(jumping: MockClock) -> None:
    calls = {f"c{n}": {"optional": True} for n in range(6)}
    upstream = {"max_concurrency": 2, "max_queue": 3}
    seen = await both_ways(Case([after(0.1)], calls=calls, upstream=upstream, warm=2, alike=True))
    assert in_air(seen) == 2
    assert seen.statistics["bulkhead"]["overflowed"] == 1


# Replicas.


async def test_replicas_take_their_turns(jumping: MockClock) -> None:
    calls = {f"c{n}": {} for n in range(5)}
    seen = await both_ways(Case(calls=calls, warm=6, replicas=2, times=3))
    assert in_air(seen) == 15
    assert [replica["taken"] for replica in seen.statistics["balance"]["replicas"]] == [11, 10]


@pytest.mark.parametrize("retry", [None, {"attempts": 2, "backoff": "10ms"}])
async def test_a_replica_that_refuses_is_left_out_the_same(retry: Any, jumping: MockClock) -> None:
    async def refuse(lab: Lab) -> None:
        lab.servers[0].refuse()
        for peer in lab.servers[0].connections:
            await peer.stream.aclose()
        await wait_all_tasks_blocked()

    upstream = {"retry": retry, "ejection": {"failures": 2}, "connect_timeout": "1s"}
    seen = await both_ways(Case(warm=2, replicas=2, times=9, upstream=upstream, before=refuse))
    assert seen.statistics["balance"]["ejections"] == 1
    assert any(event[0] == "note" and event[2] == "ejection.out" for event in seen.events)


async def test_a_set_of_replicas_that_changes_is_followed() -> None:
    sets = [(0,), (0, 1), (1,), (), (1, 0), (0,)]
    known: dict[Lab, tuple[Replica, ...]] = {}

    async def change(lab: Lab, run: Run) -> Result | None:
        balance, places = lab.stack._layers.balance, sets[len(lab.records.calls) % len(sets)]
        if not isinstance(balance._source, Given):
            balance._source = Given(*balance._replicas)
            known[lab] = balance._replicas
        balance._source.become(*(known[lab][place] for place in places))
        return await run()

    seen = await both_ways(Case(warm=2, replicas=2, times=12, around=change, upstream={"breaker": {}}))
    assert in_air(seen) == 10
    assert [event[3][4][0] for event in seen.events if event[0] == "call" and event[3][1] == "failed"] == [Kind.DNS] * 2


# The pool.


async def test_a_connection_that_its_pool_closes_ends_its_call(jumping: MockClock) -> None:
    async def close(lab: Lab, run: Run) -> Result | None:
        results: list[Result | None] = []

        async def fly() -> None:
            results.append(await run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fly)
            await wait_all_tasks_blocked()
            for connection in [*lab.stack._layers.pool._active]:
                connection.close_now()
        return results[0]

    seen = await both_ways(Case([hang], calls=TWO_OPTIONAL, warm=2, around=close))
    assert in_air(seen) == 2
    assert {event[3][4][0] for event in seen.events if event[0] == "call"} == {Kind.RESET}


async def test_a_pool_that_ends_under_calls_in_the_air_ends_them() -> None:
    case = Case([hang], calls=TWO_OPTIONAL, warm=2)
    results: list[Any] = []
    for express in (False, True):
        async with trio.open_nursery() as nursery, laboratory(case, express) as (lab, _, counting):

            async def fly(lab: Lab = lab) -> None:
                results.append(plain_result(await lab.run()))

            nursery.start_soon(fly)
            await wait_all_tasks_blocked()
            assert lab.stack.statistics().pool.active == 2
        assert_nothing_left(lab.stack)
    assert counting is not None
    assert counting.in_air == 2
    assert results[0] == results[1]
    assert [outcome[4][0] for outcome in results[1][3]] == [Kind.RESET, Kind.RESET]


async def test_thousands_of_calls_fly_in_one_composition() -> None:
    async def at_once(peer: Peer) -> None:
        await peer.send(ONE)

    calls = {f"c{n}": {} for n in range(1100)}
    upstream = {"max_concurrency": 200, "max_queue": 5000}
    seen = await both_ways(Case([at_once], calls=calls, warm=100, upstream=upstream, alike=True))
    assert seen.way is not None
    assert (seen.way.in_air, seen.way.carried, seen.way.refused) == (100, 100, 900)
