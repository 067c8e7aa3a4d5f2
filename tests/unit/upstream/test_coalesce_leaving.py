"""Callers that leave a flight: whose it is then, until when, and what they have seen of it."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.coalescing import Bottom, answering, ask_until, asking, call_facts, hang
from umbel.kinds import Kind
from umbel.model import Attempt as AttemptRecord
from umbel.model import facts_of
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance
from umbel.upstream.breaker import Breaker
from umbel.upstream.coalesce import CLOSE_SECONDS, Coalesce, CoalesceStatistics
from umbel.upstream.retry import Retry

# Who leaves


@pytest.mark.parametrize("known", [True, False], ids=["a call's deadline", "a scope's deadline"])
async def test_callers_without_end_do_not_keep_a_flight_that_hangs(known: bool, autojump_clock) -> None:
    """Each waits four seconds for it; a new one comes every second."""
    began: list[float] = []
    lasted: list[float] = []

    async def hangs(request: httpx.Request) -> httpx.Response:
        began.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            lasted.append(trio.current_time() - began[0])
        raise AssertionError

    async with Coalesce(Bottom(hangs)) as coalesce, trio.open_nursery() as nursery:
        for _ in range(30):
            scope = trio.CancelScope(deadline=trio.current_time() + 4)
            request = asking(call_facts("caller", budget=4)) if known else asking()
            nursery.start_soon(ask_until, coalesce, request, scope)
            await trio.sleep(1)
    assert lasted[0] <= 8
    assert began[:3] == [0, 4, 8]


async def test_a_caller_that_leaves_leaves_the_others_their_flight(autojump_clock) -> None:
    bottom = Bottom(answering())
    leaver = trio.CancelScope()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(), leaver)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(coalesce.handle_async_request, asking())
        await trio.sleep(0.5)
        leaver.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert leaver.cancelled_caught
        assert coalesce.statistics() == CoalesceStatistics(1, 1, 1, 1, 0, 0, 0)
    assert len(bottom.requests) == 1


async def test_the_last_one_that_leaves_ends_the_flight_and_sees_its_end(autojump_clock) -> None:
    facts = call_facts("first"), call_facts("last")
    bottom = Bottom(hang)
    async with Coalesce(Attempt(bottom)) as coalesce, trio.open_nursery() as nursery:
        scopes = trio.CancelScope(), trio.CancelScope()
        for each, scope in zip(facts, scopes, strict=True):
            nursery.start_soon(ask_until, coalesce, asking(each), scope)
        await trio.sleep(1)
        scopes[0].cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 1
        scopes[1].cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 0
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 1, 0, 1, 0)
    assert facts[0].attempts == [], "without a balance layer nobody knows of attempts before they end"
    assert [each.kind for each in facts[1].attempts] == [Kind.CLIENT_GONE]


@pytest.mark.parametrize(
    ("reason", "kind"), [("client-gone", Kind.CLIENT_GONE), ("decided", Kind.CANCELLED), (None, Kind.TIMEOUT)]
)
async def test_a_caller_that_leaves_takes_along_what_was_attempted_until_then(
    reason: str | None, kind: Kind, autojump_clock
) -> None:
    """Also what is still under way, with the replica, the time and the cause that it has, and the end of the call."""
    began = trio.current_time()
    seconds = iter([1.0, 1000.0])

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(next(seconds))
        return httpx.Response(503)

    stays, leaves = call_facts("stays", budget=60), call_facts("leaves", budget=4, route_budget=4)
    scope = trio.CancelScope(deadline=began + 60 if reason else leaves.deadline)
    stack = Retry(Balance(Attempt(Bottom(act)), ["http://a"]), backoff=0.0)
    async with Coalesce(stack) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(stays), trio.CancelScope(deadline=began + 9))
        await trio.sleep(0.5)
        nursery.start_soon(ask_until, coalesce, asking(leaves), scope)
        await trio.sleep(2.5)
        if reason:
            scope.cancel(reason=reason)
        await trio.sleep(2)
        assert len(leaves.attempts) == 2, "it has left"
        assert stays.attempts == []
    left_at = began + (3.0 if reason else 4.0)
    assert leaves.attempts == [
        AttemptRecord(1, "http://a", began, began + 1.0, 503, None, False, "first", coalesced=True),
        AttemptRecord(2, "http://a", began + 1.0, left_at, None, kind, False, "retry", coalesced=True),
    ]
    # Whose flight it is sees the attempt's own end.
    assert [(each.ended_at, each.coalesced) for each in stays.attempts] == [(began + 1.0, False), (began + 9.0, False)]


async def test_a_call_that_comes_when_the_last_has_left_begins_a_new_flight(autojump_clock) -> None:
    async def leave_slowly(request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep(10)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
        return httpx.Response(200)

    bottom = Bottom(leave_slowly)
    scope = trio.CancelScope()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(), scope)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 1
        assert (await coalesce.handle_async_request(asking())).status_code == 200
    assert len(bottom.requests) == 2


async def test_a_flight_that_does_not_end_does_not_hold_the_last_caller(autojump_clock) -> None:
    async def stuck(request: httpx.Request) -> httpx.Response:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        return httpx.Response(200)

    async with Coalesce(Bottom(stuck)) as coalesce:
        started = trio.current_time()
        with trio.move_on_after(2):
            await coalesce.handle_async_request(asking())
        assert trio.current_time() == started + 2 + CLOSE_SECONDS


async def test_a_crowd_that_leaves_at_once_costs_no_scan_each(autojump_clock) -> None:
    async with Coalesce(Bottom(hang)) as coalesce:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(2000):
                    nursery.start_soon(coalesce.handle_async_request, asking(call_facts()))
                await trio.testing.wait_all_tasks_blocked()
                assert coalesce.statistics().waiting == 2000
                scope.cancel(reason="shutdown")
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 1999, 0, 1, 0)


# Time


async def test_the_flights_deadline_is_the_latest_of_those_who_wait(autojump_clock) -> None:
    bottom = Bottom(hang)
    start = trio.current_time()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:

        def begin(budget: float) -> trio.CancelScope:
            scope = trio.CancelScope(deadline=trio.current_time() + budget)
            nursery.start_soon(ask_until, coalesce, asking(call_facts(budget=budget)), scope)
            return scope

        begin(5)
        await trio.testing.wait_all_tasks_blocked()
        own = facts_of(bottom.requests[0])
        assert own is not None
        assert own.deadline == start + 5
        begin(3)
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 5
        long = begin(9)
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 9
        begin(7)
        await trio.testing.wait_all_tasks_blocked()
        long.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 7
        await trio.sleep_until(start + 6)
        assert bottom.in_flight == 1
        await trio.sleep_until(start + 7.001)
        assert bottom.in_flight == 0


@pytest.mark.parametrize(
    ("joins_after", "kind"),
    [(0.0, Kind.TIMEOUT), (4.0, Kind.TIMEOUT), (6.0, Kind.CANCELLED)],
    ids=["at once", "with more than half of its time left", "late"],
)
async def test_a_hanging_upstream_is_a_timeout_of_the_flight_as_it_is_of_a_call(
    joins_after: float, kind: Kind, autojump_clock
) -> None:
    facts = call_facts(budget=10, route_budget=10)
    async with Coalesce(Attempt(Bottom(hang))) as coalesce:
        with trio.move_on_at(facts.deadline):
            await trio.sleep(joins_after)
            await coalesce.handle_async_request(asking(facts))
    assert [each.kind for each in facts.attempts] == [kind]


async def test_a_hanging_upstream_opens_the_breaker_below_and_clients_that_leave_do_not(autojump_clock) -> None:
    async def ask(coalesce: Coalesce, target: str, leaves_after: float | None) -> None:
        facts = call_facts(budget=2, route_budget=2)
        scope = trio.CancelScope(deadline=facts.deadline)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_until, coalesce, asking(facts, target), scope)
            if leaves_after is not None:
                await trio.sleep(leaves_after)
                scope.cancel(reason="client-gone")

    for leaves_after, state in ((1.9, "closed"), (None, "open")):
        breaker = Breaker(Attempt(Bottom(hang)), min_requests=20)
        async with Coalesce(breaker) as coalesce, trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, coalesce, f"/{number % 20}", leaves_after)
        (origin,) = breaker.statistics().origins.values()
        assert origin.state == state, leaves_after


async def test_the_time_of_who_stays_decides_what_the_end_means(autojump_clock) -> None:
    """The caller with the most time leaves; the flight then ends by the time of the other."""
    stays, leaves = call_facts("stays", budget=2, route_budget=2), call_facts("leaves", budget=60, route_budget=60)
    gone = trio.CancelScope()
    async with Coalesce(Attempt(Bottom(hang))) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(leaves), gone)
        nursery.start_soon(ask_until, coalesce, asking(stays), trio.CancelScope(deadline=stays.deadline))
        await trio.sleep(1)
        gone.cancel(reason="client-gone")
    assert [each.kind for each in stays.attempts] == [Kind.TIMEOUT]
