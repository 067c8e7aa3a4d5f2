"""Compositions over sockets whose upstream breaks, hangs, refuses or is busy: the end of each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.composition.over_sockets import (
    BUSY,
    ONE,
    Case,
    Lab,
    Step,
    assert_nothing_left,
    laboratory,
    observe,
)
from tests.support.upstream.failure_cases import (
    after,
    fin,
    hang,
    hang_in_the_body,
    hang_in_the_head,
    reset,
    reset_in_the_body,
    reset_in_the_head,
)
from tests.support.upstream.raw_server import Peer, response
from tests.support.upstream.replica_sources import ChangingReplicas
from umbel.composition.answer.result import Result
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState

TWO: dict[str, Any] = {"a": {}, "b": {}}
TWO_OPTIONAL: dict[str, Any] = {"a": {"optional": True}, "b": {"optional": True}}
VALUE = {"one": 1}
Run = Callable[[], Awaitable[Result | None]]


@pytest.fixture
def jumping(mock_clock: MockClock) -> MockClock:
    """A clock that jumps once nothing has happened for a while: all ends of the sockets are in this very loop."""
    mock_clock.autojump_threshold = 0.005
    return mock_clock


# Connections that break.


async def leave(lab: Lab) -> None:
    """Close the upstream's idle connections."""
    for server in lab.servers:
        for peer in server.connections:
            await peer.stream.aclose()
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("warm", [1, 3])
async def test_connections_that_were_closed_while_idle_are_stale(warm: int) -> None:
    seen = await observe(Case(warm=warm, before=leave, times=2))
    assert seen.ends == [{"a": VALUE}] * 2
    pool = seen.statistics.pool
    assert (pool.stale, pool.opened, pool.replaced) == (warm, warm + 1, 0)


async def test_a_connection_that_received_bytes_while_idle_is_stale() -> None:
    async def speak(lab: Lab) -> None:
        await lab.servers[0].connections[0].send(ONE)
        await wait_all_tasks_blocked()

    seen = await observe(Case(before=speak))
    assert (seen.ends, seen.statistics.pool.stale) == ([{"a": VALUE}], 1)


@pytest.mark.parametrize("ends", [reset, fin])
@pytest.mark.parametrize("warm", [1, 2])
async def test_a_kept_connection_that_ends_as_the_request_arrives_is_replaced(ends: Step, warm: int) -> None:
    # By a new connection, because another kept one may have ended too.
    seen = await observe(Case([ends, ONE], warm=warm))
    assert seen.ends == [{"a": VALUE}]
    assert (seen.statistics.pool.replaced, seen.statistics.pool.opened) == (1, warm + 1)
    (attempt,) = seen.full_attempts
    assert not attempt.reused


@pytest.mark.parametrize("ends", [reset, fin])
async def test_a_kept_connection_that_ends_under_a_post_fails_the_call(ends: Step) -> None:
    seen = await observe(Case([ends, ONE], calls={"a": {"method": "POST"}}, upstream={"retry": {"attempts": 3}}))
    assert (seen.ends, len(seen.requests), seen.kept) == ([{"a": Kind.RESET}], 1, 0)


@pytest.mark.parametrize("ends", [reset, fin])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_call_fails_if_the_replacing_connection_ends_too(ends: Step, attempts: int) -> None:
    seen = await observe(Case([ends], upstream={"retry": {"attempts": attempts}}))
    assert seen.ends == [{"a": Kind.RESET}]
    assert seen.attempts == [(None, Kind.RESET, "first"), (None, Kind.RESET, "retry")][:attempts]
    assert len(seen.requests) == 1 + attempts


@pytest.mark.parametrize(("step", "status"), [(reset_in_the_head, None), (reset_in_the_body, 200)])
async def test_a_connection_that_breaks_after_a_byte_of_the_response_fails_the_call(
    step: Step, status: int | None
) -> None:
    seen = await observe(Case([step], upstream={"retry": {}}))
    assert seen.ends == [{"a": Kind.RESET}]
    assert seen.attempts == [(status, Kind.RESET, "first")]


async def test_a_call_fails_if_the_replacing_connection_is_refused() -> None:
    async def go(lab: Lab, run: Run) -> Result | None:
        for server in lab.servers:
            server.refuse()
        return await run()

    seen = await observe(Case([reset], around=go))
    assert (seen.ends, seen.attempts) == ([{"a": Kind.CONNECT}], [(None, Kind.CONNECT, "first")])


# Time.


@pytest.mark.parametrize(("step", "status"), [(hang, None), (hang_in_the_head, None), (hang_in_the_body, 200)])
@pytest.mark.parametrize(
    ("call", "detail"),
    [
        ({}, "unfinished at the route's deadline"),
        ({"timeout": "300ms"}, "no answer within the call's limit of 0.3 s"),
        ({"timeout": "2s"}, "unfinished at the route's deadline"),
        ({"optional": True}, "unfinished at the route's deadline"),
    ],
    ids=str,
)
async def test_a_call_without_a_response_ends_at_its_limit(
    step: Step, status: int | None, call: dict[str, Any], detail: str, jumping: MockClock
) -> None:
    seen = await observe(Case([step], calls={"a": call}, deadline=1.0, upstream={"breaker": {}}))
    (record,) = seen.records.calls
    failure = record.outcome.failure
    assert failure is not None
    assert (failure.kind, failure.detail) == (Kind.TIMEOUT, detail)
    assert lasted(seen, "a") == [0.3 if "300ms" in str(call) else 1.0]
    assert (seen.attempts, seen.kept) == ([(status, Kind.TIMEOUT, "first")], 0)
    assert seen.statistics.breaker is not None
    assert seen.statistics.breaker.failures == 1


def lasted(seen: Any, call: str) -> list[float]:
    """Seconds of a call, in each run."""
    outcomes = [event.outcome for event in seen.records.calls if event.outcome.call == call]
    return [round(outcome.ended_at - outcome.started_at, 1) for outcome in outcomes]


async def test_calls_with_own_limits_end_each_at_its_limit(jumping: MockClock) -> None:
    calls: dict[str, Any] = {
        name: {"timeout": timeout, "optional": True}
        for name, timeout in zip("abc", ("300ms", "100ms", "3s"), strict=True)
    }
    calls["d"] = {"optional": True}
    steps = {"/a": [hang], "/b": [hang], "/c": [after(0.2)], "/d": [after(0.4)]}
    seen = await observe(Case(steps, calls=calls, deadline=1.0, warm=4))
    assert seen.ends == [{"a": Kind.TIMEOUT, "b": Kind.TIMEOUT, "c": VALUE, "d": VALUE}]
    assert [lasted(seen, call) for call in "abcd"] == [[0.3], [0.1], [0.2], [0.4]]


async def test_the_limit_of_a_call_that_begins_later_is_kept(jumping: MockClock) -> None:
    # c waits for b, which needed a task: when c begins, the task of the composition waits for a alone.
    calls: dict[str, Any] = {
        "a": {},
        "b": {"method": "POST"},
        "c": {"path": "/c/{b.one}", "timeout": "100ms", "optional": True},
    }
    steps = {"/a": [after(3.0)], "/b": [after(0.1)], "/c": [hang]}
    seen = await observe(Case(steps, calls=calls, warm=1))
    assert seen.ends == [{"a": VALUE, "b": VALUE, "c": Kind.TIMEOUT}]
    assert lasted(seen, "c") == [0.1]


@pytest.mark.parametrize(("share", "kind"), [(0.2, Kind.CANCELLED), (0.7, Kind.TIMEOUT)])
async def test_the_deadline_is_a_timeout_only_for_calls_that_had_half_of_its_time(
    share: float, kind: Kind, jumping: MockClock
) -> None:
    calls: dict[str, Any] = {"a": {}, "b": {"path": "/b/{a.one}"}}
    steps = {"/a": [after(1 - share)], "/b": [hang]}
    seen = await observe(Case(steps, calls=calls, deadline=1.0, upstream={"breaker": {}}, warm=2))
    assert seen.ends == [{"a": VALUE, "b": Kind.TIMEOUT}]
    assert seen.attempts == [(200, None, "first"), (None, kind, "first")]
    assert seen.statistics.breaker is not None
    assert seen.statistics.breaker.failures == (kind is Kind.TIMEOUT)


async def test_an_attempt_with_a_replaced_connection_began_when_it_was_first_sent(jumping: MockClock) -> None:
    async def leave_late(peer: Peer) -> bool:
        await trio.sleep(0.6)
        return False

    seen = await observe(Case([leave_late, hang], deadline=1.0, upstream={"breaker": {}}))
    (attempt,) = seen.full_attempts
    assert (round(attempt.ended_at - attempt.started_at, 1), attempt.kind) == (1.0, Kind.TIMEOUT)


@pytest.mark.parametrize(
    ("reason", "kind"), [("client-gone", Kind.CLIENT_GONE), ("something else", Kind.CANCELLED)], ids=["gone", "else"]
)
async def test_a_client_that_leaves_ends_all_calls(reason: str, kind: Kind, jumping: MockClock) -> None:
    async def cut(lab: Lab, run: Run) -> Result | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel(reason=reason)
        return None

    seen = await observe(Case([hang], calls=TWO, warm=2, around=cut))
    assert seen.attempts == [(None, kind, "first")] * 2
    assert [event.outcome.failure.kind for event in seen.records.calls] == [kind] * 2  # type: ignore[union-attr]
    assert seen.kept == 0


# Calls that end other calls.


@pytest.mark.parametrize("route", [{"combine": "first"}, {"combine": "quorum", "quorum": 2}], ids=["first", "quorum"])
async def test_calls_that_the_answer_does_not_need_are_cancelled(route: dict[str, Any], jumping: MockClock) -> None:
    steps = {"/a": [hang], "/b": [after(0.1)], "/c": [after(0.2)], "/d": [hang_in_the_body]}
    seen = await observe(Case(steps, calls={name: {} for name in "abcd"}, route=route, warm=4))
    answered = 1 if route["combine"] == "first" else 2
    second = Kind.CANCELLED if answered == 1 else VALUE
    assert seen.ends == [{"a": Kind.CANCELLED, "b": VALUE, "c": second, "d": Kind.CANCELLED}]
    assert lasted(seen, "a") == [answered / 10]
    assert seen.kept == answered


async def test_the_failure_of_a_required_call_cancels_the_others(jumping: MockClock) -> None:
    steps = {"/a": [hang], "/b": [after(0.1, response(b"no", status=b"500 No"))]}
    seen = await observe(Case(steps, calls=TWO, warm=2))
    assert seen.ends == [{"a": Kind.CANCELLED, "b": Kind.STATUS}]
    assert (lasted(seen, "a"), seen.kept) == ([0.1], 1)


async def test_a_cancelled_call_in_the_queue_is_not_sent(jumping: MockClock) -> None:
    """The place of a call in the pause before its retry must not be granted to the cancelled call."""
    busy = response(b"no", b"Retry-After: 2", status=b"503 Busy")
    calls: dict[str, Any] = {"a": {}, "b": {"method": "PUT"}}
    upstream = {"max_concurrency": 1, "retry": {"attempts": 2}}
    seen = await observe(Case([busy], calls=calls, upstream=upstream, deadline=4.0, around=cut_after(1.0)))
    assert [request.split(b" ")[0] for request in seen.requests] == [b"GET"]
    assert seen.attempts == [(503, None, "first")]
    assert seen.kept == 1


def cut_after(seconds: float) -> Callable[[Lab, Run], Awaitable[Result | None]]:
    async def around(lab: Lab, run: Run) -> Result | None:
        with trio.move_on_after(seconds):
            return await run()
        return None

    return around


async def test_dependants_begin_when_their_dependencies_have_ended() -> None:
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
    steps: dict[str, list[Step]] = {"/missing": [BUSY], "/lost": [BUSY], "/": [ONE]}
    seen = await observe(Case(steps, calls=calls, warm=3))
    (ends,) = seen.ends
    assert ends == {
        **dict.fromkeys("abcef", VALUE),
        "d": 5,
        "missing": Kind.STATUS,
        "lost": Kind.STATUS,
        "g": Kind.DEPENDENCY,
        "items": [VALUE, VALUE],
        "bad": Kind.BAD_REQUEST,
    }
    sent = sorted(request.split(b" ")[1].decode() for request in seen.requests)
    assert sent == ["/a", "/b/1", "/c/1", "/e/5", "/f/0", "/i/1", "/lost", "/missing"]


# Policies.


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        ([BUSY, ONE], [503, 200]),
        ([BUSY], [503, 503, 503]),
        ([fin, fin, ONE], [Kind.RESET, 200]),
        ([reset, reset, ONE], [Kind.RESET, 200]),
        ([reset_in_the_head, ONE], [Kind.RESET]),
        ([BUSY, reset, reset], [503, Kind.RESET, Kind.RESET]),
    ],
    ids=["503", "503 for ever", "closed", "reset", "after a byte", "and lost"],
)
@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_a_retryable_failure_is_retried(
    steps: list[Step], ends: list[Any], attempts: int, jumping: MockClock
) -> None:
    seen = await observe(Case(steps, upstream={"retry": {"attempts": attempts}, "breaker": {}}))
    made = ends[:attempts]
    assert [status or kind for status, kind, _ in seen.attempts] == made
    assert [cause for _, _, cause in seen.attempts] == ["first", "retry", "retry"][: len(made)]
    last = {200: VALUE, 503: Kind.STATUS}.get(made[-1], made[-1])
    assert seen.ends == [{"a": last}]
    assert seen.statistics.retry.retries == len(made) - 1
    assert seen.statistics.retry.mended == (made[-1] == 200 and len(made) > 1)
    assert seen.statistics.breaker is not None
    assert seen.statistics.breaker.failures == sum(end != 200 for end in made)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_retries_of_many_calls_spend_one_budget(replicas: int, jumping: MockClock) -> None:
    calls: dict[str, Any] = {f"c{n}": {"optional": True} for n in range(8)}
    upstream = {"retry": {"attempts": 3, "backoff": "10ms"}, "retry_budget": "1%", "ejection": False}
    seen = await observe(Case([BUSY], calls=calls, upstream=upstream, warm=8, replicas=replicas))
    assert seen.ends == [dict.fromkeys(calls, Kind.STATUS)]
    retries = len(seen.attempts) - 8
    assert seen.statistics.retry.retries == retries
    # The share of eight calls is less than the minimum of three; five calls ask for a fourth retry.
    assert (retries <= 6, seen.statistics.budget.denied >= 5) == (True, True)


async def test_a_retry_that_would_begin_after_the_deadline_is_not_made(jumping: MockClock) -> None:
    busy = response(b"no", b"Retry-After: 3", status=b"503 Busy")
    seen = await observe(Case([busy], upstream={"retry": {}}, deadline=2.0))
    assert (seen.ends, lasted(seen, "a")) == ([{"a": Kind.STATUS}], [0.0])
    assert (seen.statistics.retry.late, len(seen.attempts)) == (1, 1)


async def test_the_failure_of_a_required_call_ends_the_pause_before_a_retry(jumping: MockClock) -> None:
    busy = response(b"no", b"Retry-After: 1", status=b"503 Busy")
    calls: dict[str, Any] = {"a": {"timeout": "3s"}, "b": {}}
    steps: dict[str, list[Step]] = {"/a": [busy], "/b": [after(0.5, response(b"", status=b"500 No"))]}
    seen = await observe(Case(steps, calls=calls, upstream={"retry": {}}, warm=2))
    assert (seen.ends, lasted(seen, "a")) == ([{"a": Kind.CANCELLED, "b": Kind.STATUS}], [0.5])
    assert len(seen.attempts) == 2


@pytest.mark.parametrize("retry", [None, {"attempts": 3, "backoff": "10ms"}])
async def test_a_breaker_opens_after_the_configured_failures(retry: Any, jumping: MockClock) -> None:
    upstream = {"breaker": {"min_requests": 3, "open_for": "1s"}, "retry": retry}
    seen = await observe(Case([BUSY], upstream=upstream, times=5))
    # The first request counts as well, so the second failure opens the breaker.
    open_from = 1 if retry else 2
    kinds = [Kind.STATUS] * open_from + [Kind.BREAKER_OPEN] * (5 - open_from)
    assert [end["a"] for end in seen.ends] == kinds
    breaker = seen.statistics.breaker
    assert breaker is not None
    assert (breaker.opened, breaker.refused) == (1, 5 - open_from)
    # A retry that would come after the breaker has opened is not made.
    assert len(seen.attempts) == 2
    assert seen.statistics.retry.blocked == (retry is not None)


async def test_a_half_open_breaker_admits_one_probe_at_a_time(jumping: MockClock) -> None:
    async def later(lab: Lab, run: Run) -> Result | None:
        await trio.sleep(0.6)
        return await run()

    upstream = {"breaker": {"min_requests": 2, "open_for": "1s"}}
    steps: list[Step] = [BUSY, BUSY, BUSY, hang, ONE]
    seen = await observe(Case(steps, upstream=upstream, times=12, around=later, deadline=0.5))
    assert seen.statistics.breaker is not None
    assert seen.statistics.breaker.state is BreakerState.CLOSED
    ends = [end["a"] for end in seen.ends]
    assert ends[1:8:2] == [Kind.BREAKER_OPEN] * 4
    assert ends[:8:2] == [Kind.STATUS] * 3 + [Kind.TIMEOUT]
    assert ends[8:] == [VALUE] * 4


async def test_the_calls_of_one_request_wait_in_a_queue_of_any_length(jumping: MockClock) -> None:
    calls: dict[str, Any] = {f"c{n}": {"optional": True} for n in range(6)}
    upstream = {"max_concurrency": 2, "max_queue": 0}
    seen = await observe(Case([after(0.1)], calls=calls, upstream=upstream, warm=2))
    assert seen.ends == [dict.fromkeys(calls, VALUE)]
    assert sorted(lasted(seen, call)[0] for call in calls) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert seen.statistics.bulkhead.overflowed == 0


# Replicas.


async def test_replicas_are_taken_in_turn(jumping: MockClock) -> None:
    calls: dict[str, Any] = {f"c{n}": {} for n in range(5)}
    seen = await observe(Case(calls=calls, warm=6, replicas=2, times=3))
    assert seen.ends == [dict.fromkeys(calls, VALUE)] * 3
    assert [replica.taken for replica in seen.statistics.balance.replicas] == [11, 10]


@pytest.mark.parametrize("retry", [None, {"attempts": 2, "backoff": "10ms"}])
async def test_a_replica_that_refuses_is_ejected(retry: Any, jumping: MockClock) -> None:
    async def refuse(lab: Lab) -> None:
        lab.servers[0].refuse()
        for peer in lab.servers[0].connections:
            await peer.stream.aclose()
        await wait_all_tasks_blocked()

    upstream = {"retry": retry, "ejection": {"failures": 2}, "connect_timeout": "1s"}
    seen = await observe(Case(warm=2, replicas=2, times=9, upstream=upstream, before=refuse))
    assert seen.statistics.balance.ejections == 1
    ends = [end["a"] for end in seen.ends]
    assert ends.count(Kind.CONNECT) == (0 if retry else 2)
    assert sum(kind is Kind.CONNECT for _, kind, _ in seen.attempts) == 2
    assert [note.event for note in seen.records.logged] == ["ejection.out"]


async def test_a_set_of_replicas_that_changes_is_followed() -> None:
    sets = [(0,), (0, 1), (1,), (), (1, 0), (0,)]

    async def change(lab: Lab, run: Run) -> Result | None:
        balance, places = lab.client.balance, sets[len(lab.records.calls) % len(sets)]
        if not isinstance(balance._source, ChangingReplicas):
            balance._source, balance._fixed = ChangingReplicas(*balance._replicas), False
            lab.known = balance._replicas  # type: ignore[attr-defined]
        balance._source.become(*(lab.known[place] for place in places))  # type: ignore[attr-defined]
        return await run()

    seen = await observe(Case(warm=2, replicas=2, times=12, around=change, upstream={"breaker": {}}))
    assert [end["a"] for end in seen.ends] == ([VALUE] * 3 + [Kind.DNS] + [VALUE] * 2) * 2


# The pool.


async def test_a_connection_closed_by_its_pool_ends_its_call(jumping: MockClock) -> None:
    async def close(lab: Lab, run: Run) -> Result | None:
        results: list[Result | None] = []

        async def perform() -> None:
            results.append(await run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(perform)
            await wait_all_tasks_blocked()
            for connection in [*lab.client.pool._active]:
                connection.close_now()
        return results[0]

    seen = await observe(Case([hang], calls=TWO_OPTIONAL, warm=2, around=close))
    assert seen.ends == [{"a": Kind.RESET, "b": Kind.RESET}]


async def test_closing_a_client_ends_its_calls() -> None:
    results: list[Result] = []
    async with trio.open_nursery() as nursery, laboratory(Case([hang], calls=TWO_OPTIONAL, warm=2)) as (lab, _):

        async def perform() -> None:
            results.append(await lab.run())

        nursery.start_soon(perform)
        await wait_all_tasks_blocked()
        assert lab.client.statistics().pool.active == 2
    assert_nothing_left(lab.client)
    (result,) = results
    assert [outcome.failure.kind for outcome in result.outcomes if outcome.failure] == [Kind.RESET, Kind.RESET]


async def test_a_composition_makes_thousands_of_calls() -> None:
    async def at_once(peer: Peer) -> None:
        await peer.send(ONE)

    calls: dict[str, Any] = {f"c{n}": {} for n in range(1100)}
    upstream = {"max_concurrency": 200, "max_queue": 5000}
    seen = await observe(Case([at_once], calls=calls, warm=100, upstream=upstream))
    assert seen.ends == [dict.fromkeys(calls, VALUE)]
    # A hundred calls make a connection, and all others use kept connections.
    assert (seen.tasks, seen.statistics.pool.opened) == (200, 200)
