"""Waiters that leave a shared call: its deadline, its end, and the recorded attempts."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from tests.support.upstream.memory_calls import Asked, Made, answer, answering, coalescing, hang, request_of
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt as AttemptRecord
from umbel.upstream import BreakerRules, CallTimedOut, CoalesceStatistics, Retry
from umbel.upstream.calls.coalesce import SharedCall

# Waiters that leave


@pytest.mark.parametrize("own", [True, False], ids=["by its own limit", "at its request's deadline"])
async def test_a_steady_flow_of_callers_does_not_prolong_a_shared_call_that_hangs(own: bool, autojump_clock) -> None:
    """Each caller waits four seconds; a new caller comes every second."""
    began: list[float] = []
    lasted: list[float] = []

    async def hangs(asked: Asked) -> bytes:
        began.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            lasted.append(trio.current_time() - began[0])
        raise AssertionError

    async with coalescing(hangs) as upstream:
        for _ in range(30):
            upstream.start(limit=4) if own else upstream.start(budget=4)
            await trio.sleep(1)
        await trio.sleep(10)
    assert lasted[0] <= 8
    assert began[:3] == [0, 4, 8]


async def test_a_shared_call_goes_on_when_one_of_its_waiters_leaves(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        leaves, stays = upstream.start(), upstream.start()
        await trio.sleep(0.5)
        leaves.cancel("client-gone")
        assert upstream.statistics == CoalesceStatistics(1, 1, 1, 1, 0, 0, 0)
        assert (await stays.end()).status == 200
        assert len(upstream.requests) == 1


async def test_the_last_waiter_that_leaves_cancels_the_shared_call(autojump_clock) -> None:
    async with coalescing(hang) as upstream:
        first, last = upstream.start(), upstream.start()
        await trio.sleep(1)
        first.cancel("client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.in_flight == 1
        last.cancel("client-gone")
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 1, 0, 1, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.in_flight == 0
        assert [(each.kind, each.coalesced) for each in first.attempts] == [(Kind.CLIENT_GONE, False)]
        assert [(each.kind, each.coalesced) for each in last.attempts] == [(Kind.CLIENT_GONE, True)]


def without_ids(attempt: AttemptRecord) -> AttemptRecord:
    return replace(attempt, span_id=0, trace=None, cancelled=None, method="", dial=None)


@pytest.mark.parametrize(
    ("reason", "kind"), [("client-gone", Kind.CLIENT_GONE), ("decided", Kind.CANCELLED), (None, Kind.TIMEOUT)]
)
async def test_a_waiter_that_leaves_has_the_attempts_made_until_then(
    reason: str | None, kind: Kind, autojump_clock
) -> None:
    """Also the attempts under way, with replica, time and cause, and with the end of the waiter's call."""
    began = trio.current_time()
    seconds = iter([1.0, 1000.0])

    async def act(asked: Asked) -> bytes:
        await trio.sleep(next(seconds))
        return answer(503)

    async with coalescing(act, retry=Retry(backoff=0.0)) as upstream:
        stays = upstream.start(budget=9)
        await trio.sleep(0.5)
        leaves = upstream.start(budget=60 if reason else 3.5)
        await trio.sleep(2.5)
        if reason:
            leaves.cancel(reason)
        await trio.sleep(2)
        assert len(leaves.attempts) == 2, "it has left"
        assert stays.attempts == []
        await trio.sleep(5)
    left_at = began + (3.0 if reason else 4.0)
    ended, cut = leaves.attempts
    expected = AttemptRecord(1, "http://a", began, began + 1.0, 503, None, False, "first", coalesced=True)
    assert without_ids(ended) == expected
    expected = AttemptRecord(2, "http://a", began + 1.0, left_at, None, kind, False, "retry", coalesced=True)
    assert without_ids(cut) == expected
    assert ended.cancelled is None
    assert cut.cancelled == (reason or "the request's deadline")
    assert ended.span_id != cut.span_id != 0
    # The waiter that stays has the attempt's own end.
    assert [(each.ended_at, each.coalesced) for each in stays.attempts] == [(began + 1.0, False), (began + 9.0, False)]


async def test_a_call_after_the_last_waiter_left_begins_a_new_shared_call(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        upstream.start().cancel("client-gone")
        await trio.sleep(0.5)
        last = upstream.start()
        await trio.sleep(0.5)
        last.cancel("client-gone")
        assert (await upstream.start().end()).status == 200
        assert upstream.statistics == CoalesceStatistics(0, 0, 3, 0, 0, 2, 0)


async def test_many_waiters_that_leave_together_take_no_scan_each(autojump_clock) -> None:
    async with coalescing(hang) as upstream:
        crowd = [upstream.start() for _ in range(2000)]
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.statistics.waiting == 2000
        for each in crowd:
            each.cancel("shutdown")
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 1999, 0, 1, 0)


# Time


async def test_the_shared_calls_deadline_is_the_latest_of_the_present_waiters(autojump_clock) -> None:
    async with coalescing(hang) as upstream:
        start = trio.current_time()

        def waits(budget: float) -> tuple[Made, SharedCall]:
            made = upstream.start(budget=budget)
            (shared,) = upstream.client.coalescing.joinable.values()
            return made, shared

        assert waits(5)[1].context.deadline == start + 5
        assert waits(3)[1].context.deadline == start + 5
        longest, shared = waits(9)
        assert shared.context.deadline == start + 9
        waits(7)
        longest.cancel("client-gone")
        assert shared.context.deadline == start + 7
        await trio.sleep_until(start + 6)
        assert upstream.in_flight == 1
        await trio.sleep_until(start + 7.001)
        assert upstream.in_flight == 0


async def test_the_deadline_header_is_that_of_the_waiter_with_the_latest_deadline(autojump_clock) -> None:
    async def act(asked: Asked) -> bytes:
        await trio.sleep(1)
        return answer(503)

    async with coalescing(act, retry=Retry(backoff=0.0)) as upstream:
        first, second = upstream.start(budget=5), upstream.start(budget=9)
        await upstream.ends(first, second)
        timeouts = [request.value(b"x-envoy-expected-rq-timeout-ms") for request in upstream.requests]
        assert timeouts == [b"5000", b"8000"]


async def test_a_waiter_whose_own_limit_passes_fails_and_the_others_go_on(autojump_clock) -> None:
    async with coalescing(answering(after=3.0)) as upstream:
        began = trio.current_time()
        first, second = upstream.start(limit=2.0, budget=10), upstream.start(budget=10)
        timed_out, answered = await upstream.ends(first, second)
        assert isinstance(timed_out.error, CallTimedOut)
        assert (timed_out.status, timed_out.ended_at - began) == (None, 2.0)
        assert [(each.kind, each.ended_at - began) for each in first.attempts] == [(Kind.TIMEOUT, 2.0)]
        assert (answered.status, answered.ended_at - began) == (200, 3.0)
        assert [(each.kind, each.coalesced) for each in second.attempts] == [(None, True)]
        assert len(upstream.requests) == 1


async def test_the_last_waiter_whose_own_limit_passes_ends_the_shared_call_as_a_timeout(autojump_clock) -> None:
    async with coalescing(hang, breaker=BreakerRules(min_requests=1)) as upstream:
        first, second = upstream.start(limit=1.0, budget=10), upstream.start(limit=2.0, budget=10)
        ends = await upstream.ends(first, second)
        assert [type(each.error) for each in ends] == [CallTimedOut, CallTimedOut]
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 1, 0, 1, 0)
        assert [each.kind for each in second.attempts] == [Kind.TIMEOUT]
        breaker = upstream.client.statistics().breaker
        assert breaker is not None
        assert (breaker.requests, breaker.failures) == (1, 1)


@pytest.mark.parametrize(
    ("joins_after", "kind"),
    [(0.0, Kind.TIMEOUT), (4.0, Kind.TIMEOUT), (6.0, Kind.CANCELLED)],
    ids=["at once", "with more than half of its time left", "late"],
)
async def test_a_shared_call_to_an_upstream_that_hangs_is_a_timeout(
    joins_after: float, kind: Kind, autojump_clock
) -> None:
    async with coalescing(hang) as upstream:
        request = request_of(budget=10)
        await trio.sleep(joins_after)
        made = upstream.start(request=request)
        await trio.sleep(11)
        assert [each.kind for each in made.attempts] == [kind]


@pytest.mark.parametrize(("leaves_after", "state"), [(1.9, "closed"), (None, "open")])
async def test_shared_calls_open_the_breaker_by_timeouts_and_not_by_clients_that_leave(
    leaves_after: float | None, state: str, autojump_clock
) -> None:
    async with coalescing(hang, breaker=BreakerRules(min_requests=20)) as upstream:
        made = [upstream.start(f"/{number % 20}".encode(), budget=2) for number in range(40)]
        if leaves_after is not None:
            await trio.sleep(leaves_after)
            for each in made:
                each.cancel("client-gone")
        else:
            await trio.sleep(2.1)
        breaker = upstream.client.statistics().breaker
        assert breaker is not None
        assert breaker.state == state


async def test_the_times_of_the_remaining_waiter_decide_the_kind_of_the_end(autojump_clock) -> None:
    """The caller with the most time leaves; the shared call then ends by the time of the other."""
    async with coalescing(hang) as upstream:
        leaves, stays = upstream.start(budget=60), upstream.start(budget=2)
        await trio.sleep(1)
        leaves.cancel("client-gone")
        await trio.sleep(2)
        assert [each.kind for each in stays.attempts] == [Kind.TIMEOUT]
