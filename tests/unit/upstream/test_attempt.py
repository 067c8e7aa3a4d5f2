from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
import pytest
import trio

from umbel.events import AttemptEnded, Event
from umbel.kinds import Kind
from umbel.model import FACTS, CallFacts, RequestFacts, Trace
from umbel.upstream.attempt import Attempt
from umbel.upstream.ending import CLIENT_GONE
from umbel.upstream.errors import BudgetSpent, ConnectionReset
from umbel.upstream.notes import NOTES
from umbel.upstream.state import opened


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


class Bottom(httpx.AsyncBaseTransport):
    def __init__(self, act: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self._act = act
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self._act(request)


async def answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(503)


def call(*, budget: float = 10.0, route_budget: float = 10.0, state: str = "") -> CallFacts:
    now = trio.current_time()
    request = RequestFacts("id", Trace("ab" * 16, state=state, flags="01"), "GET", "/", "/", now, now + route_budget)
    return CallFacts("orders", "upstream", request, now + budget, Recorder())


def request_of(facts: CallFacts, **headers: str) -> httpx.Request:
    return httpx.Request("GET", "http://x/", headers=headers, extensions={FACTS: facts})


async def test_the_upstream_hears_the_time_left_and_a_fresh_parent_id(autojump_clock) -> None:
    bottom = Bottom(answer)
    layer = Attempt(bottom, rng=random.Random(1))
    facts = call(budget=2.0, state="vendor=1")
    await trio.sleep(0.5)
    for _ in range(2):
        await layer.handle_async_request(request_of(facts, traceparent="forged", tracestate="forged"))
    first, second = (each.headers for each in bottom.requests)
    assert first["x-envoy-expected-rq-timeout-ms"] == "1500"
    assert first["tracestate"] == "vendor=1"
    parents = [headers.get_list("traceparent") for headers in (first, second)]
    assert all(len(each) == 1 and each[0].startswith("00-" + "ab" * 16 + "-") for each in parents)
    assert all(each[0].endswith("-01") and len(each[0]) == 55 for each in parents)
    assert parents[0] != parents[1]


async def test_the_time_left_is_never_said_to_be_nothing(autojump_clock) -> None:
    bottom = Bottom(answer)
    await Attempt(bottom).handle_async_request(request_of(call(budget=0.0001)))
    assert bottom.requests[0].headers["x-envoy-expected-rq-timeout-ms"] == "1"


async def test_the_deadlines_header_has_another_name_or_none(autojump_clock) -> None:
    for name in ("x-left", None):
        bottom = Bottom(answer)
        await Attempt(bottom, deadline_header=name).handle_async_request(request_of(call()))
        assert bottom.requests[0].headers.get("x-left") == ("10000" if name else None)
        assert "x-envoy-expected-rq-timeout-ms" not in bottom.requests[0].headers


async def test_without_a_deadline_nothing_is_said_of_it(autojump_clock) -> None:
    bottom = Bottom(answer)
    await Attempt(bottom).handle_async_request(request_of(call(budget=math.inf)))
    assert "x-envoy-expected-rq-timeout-ms" not in bottom.requests[0].headers


async def test_with_nothing_left_no_attempt_is_made(autojump_clock) -> None:
    bottom = Bottom(answer)
    facts = call(budget=1.0)
    await trio.sleep(1)
    with pytest.raises(BudgetSpent) as caught:
        await Attempt(bottom).handle_async_request(request_of(facts))
    assert (caught.value.kind, bottom.requests, facts.attempts) == (Kind.TIMEOUT, [], [])


async def test_each_attempt_is_recorded_with_its_number_its_times_and_its_status(autojump_clock) -> None:
    async def slowly(request: httpx.Request) -> httpx.Response:
        request.extensions[NOTES].reused = True
        await trio.sleep(0.25)
        return httpx.Response(503)

    facts = call()
    start = trio.current_time()
    layer = Attempt(Bottom(slowly))
    for _ in range(2):
        await layer.handle_async_request(request_of(facts))
    assert [(each.number, each.status, each.kind, each.reused) for each in facts.attempts] == [
        (1, 503, None, True),
        (2, 503, None, True),
    ]
    assert (facts.attempts[0].started_at, facts.attempts[0].ended_at) == (start, start + 0.25)
    recorded = [event for event in facts.recorder.events if isinstance(event, AttemptEnded)]
    assert [event.attempt for event in recorded] == facts.attempts
    assert {(event.call, event.upstream) for event in recorded} == {("orders", "upstream")}


async def test_a_failed_attempt_keeps_its_kind_and_what_is_known_of_it(autojump_clock) -> None:
    async def cut(request: httpx.Request) -> httpx.Response:
        request.extensions[NOTES].status = 200
        raise ConnectionReset("host:80 broke")

    facts = call()
    with pytest.raises(ConnectionReset):
        await Attempt(Bottom(cut)).handle_async_request(request_of(facts))
    (attempt,) = facts.attempts
    assert (attempt.kind, attempt.status) == (Kind.RESET, 200)
    assert facts.recorder.events[0].detail == "host:80 broke"


async def test_a_bug_below_is_recorded_as_internal(autojump_clock) -> None:
    async def crash(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("bug")

    facts = call()
    with pytest.raises(RuntimeError, match="bug"):
        await Attempt(Bottom(crash)).handle_async_request(request_of(facts))
    assert facts.attempts[0].kind is Kind.INTERNAL


async def _hang(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize(
    ("budget", "route_budget", "starts_after", "cancelled_after", "reason", "kind"),
    [
        (10.0, 10.0, 0.0, 1.0, CLIENT_GONE, Kind.CLIENT_GONE),
        (10.0, 10.0, 0.0, 1.0, "a sibling failed", Kind.CANCELLED),
        (10.0, 10.0, 0.0, 1.0, None, Kind.CANCELLED),
        (1.0, 10.0, 0.0, 1.0, "timeout", Kind.TIMEOUT),
        (1.0, 10.0, 0.9, 1.0, "timeout", Kind.TIMEOUT),
        (10.0, 10.0, 0.0, 10.0, "deadline", Kind.TIMEOUT),
        (10.0, 10.0, 5.0, 10.0, "deadline", Kind.TIMEOUT),
        (10.0, 10.0, 5.5, 10.0, "deadline", Kind.CANCELLED),
    ],
)
async def test_a_cancelled_attempt_is_recorded_as_what_its_end_means(
    budget: float,
    route_budget: float,
    starts_after: float,
    cancelled_after: float,
    reason: str | None,
    kind: Kind,
    autojump_clock,
) -> None:
    facts = call(budget=budget, route_budget=route_budget)

    async def cancel_later(scope: trio.CancelScope) -> None:
        await trio.sleep(cancelled_after)
        scope.cancel(reason=reason)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_later, scope)
            await trio.sleep(starts_after)
            await Attempt(Bottom(_hang)).handle_async_request(request_of(facts))
    assert scope.cancelled_caught
    assert [each.kind for each in facts.attempts] == [kind]


async def test_a_request_of_no_call_passes_as_it_is() -> None:
    bottom = Bottom(answer)
    asked = httpx.Request("GET", "http://x/")
    assert (await Attempt(bottom).handle_async_request(asked)).status_code == 503
    assert bottom.requests == [asked]


class Told:
    """A ticket that keeps what it is told."""

    blocked = False

    def __init__(self) -> None:
        self.attempts: list[tuple[float, Kind | None, int | None]] = []

    def attempted(self, now: float, kind: Kind | None, status: int | None) -> None:
        self.attempts.append((now, kind, status))


async def _told_of(act: Callable[[httpx.Request], Awaitable[httpx.Response]], cancelled_after: float = 99.0) -> Told:
    """What the ticket is told of one attempt within a call's second, which is cut earlier if it shall be."""
    told = Told()
    facts = call(budget=1.0)
    request = request_of(facts)
    request, state = opened(request)
    with trio.move_on_after(min(cancelled_after, 1.0)):
        state.ticket = told
        with suppress(ConnectionReset):
            await Attempt(Bottom(act)).handle_async_request(request)
    return told


async def test_the_breakers_ticket_is_told_of_every_attempt_that_nobody_else_cut(autojump_clock) -> None:
    async def reset(request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.5)
        raise ConnectionReset("broke")

    start = trio.current_time()
    assert (await _told_of(answer)).attempts == [(start, None, 503)]
    assert (await _told_of(reset)).attempts == [(start + 0.5, Kind.RESET, None)]
    assert (await _told_of(_hang)).attempts == [(start + 1.5, Kind.TIMEOUT, None)]
    assert (await _told_of(_hang, cancelled_after=0.9)).attempts == []


async def test_an_attempt_keeps_the_cause_that_stood_when_it_began(autojump_clock) -> None:
    facts = call()
    request = request_of(facts)

    async def slowly(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        return httpx.Response(200)

    layer = Attempt(Bottom(slowly))
    request, state = opened(request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layer.handle_async_request, request)
        await trio.sleep(0.5)
        state.cause = "hedge"
        nursery.start_soon(layer.handle_async_request, request)
    assert [attempt.cause for attempt in facts.attempts] == ["first", "hedge"]
