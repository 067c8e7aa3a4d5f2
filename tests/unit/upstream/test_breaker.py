from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composing import facts as request_facts
from tests.support.composing import plan
from tests.support.layers import Bottom, Pieces, answering, asked, call_facts, complete, hang, raising
from tests.support.records import Records
from umbel.composition.result import Result
from umbel.composition.run import run
from umbel.kinds import Kind
from umbel.model import Inputs
from umbel.policy.breaker import State
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance
from umbel.upstream.breaker import Breaker
from umbel.upstream.bulkhead import Bulkhead
from umbel.upstream.ending import CLIENT_GONE
from umbel.upstream.errors import BreakerOpen, BudgetSpent, ConnectFailed, Overflow, TooBig
from umbel.upstream.state import call_state


async def ask(breaker: Breaker, url: str = "http://upstream") -> int | Kind:
    """A call's status, or the kind that it failed with."""
    try:
        return (await breaker.handle_async_request(asked(url=url))).status_code
    except (ConnectFailed, BreakerOpen, BudgetSpent, Overflow, TooBig) as error:
        return error.kind


def snapshot(breaker: Breaker, origin: str = "http://upstream") -> tuple[State, int, int]:
    statistics = breaker.statistics().origins[origin]
    return statistics.state, statistics.requests, statistics.failures


async def opened() -> tuple[Breaker, Bottom]:
    """A breaker that opened now."""
    bottom = Bottom(answering(503))
    breaker = Breaker(bottom)
    for _ in range(20):
        assert await ask(breaker) == 503
    assert snapshot(breaker)[0] is State.OPEN
    return breaker, bottom


async def test_twenty_failures_open_it_for_five_seconds_and_one_answer_closes_it(autojump_clock) -> None:
    breaker, bottom = await opened()
    await trio.sleep(4.9)
    with pytest.raises(BreakerOpen) as caught:
        await breaker.handle_async_request(asked())
    error = caught.value
    assert isinstance(error, httpx.ConnectError)
    assert (error.kind, error.proxy_error) == (Kind.BREAKER_OPEN, "destination_unavailable")
    assert error.retry_after == pytest.approx(0.1)
    assert len(bottom.requests) == 20
    bottom.act = answering(200)
    await trio.sleep(0.11)
    assert await ask(breaker) == 200
    assert snapshot(breaker) == (State.CLOSED, 0, 0)
    assert breaker.statistics().origins["http://upstream"].refused == 1


async def test_while_a_probe_is_under_way_every_other_call_is_refused(autojump_clock) -> None:
    breaker, bottom = await opened()
    bottom.act = answering(200, after=3.0)
    await trio.sleep(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, breaker)
        await trio.sleep(1)
        with pytest.raises(BreakerOpen) as caught:
            await breaker.handle_async_request(asked())
        assert caught.value.retry_after is None
    assert snapshot(breaker)[0] is State.CLOSED
    assert len(bottom.requests) == 21


async def test_a_failed_probe_opens_it_anew(autojump_clock) -> None:
    breaker, bottom = await opened()
    bottom.act = raising(lambda: ConnectFailed("no"), after=1.0)
    await trio.sleep(5)
    assert await ask(breaker) is Kind.CONNECT
    assert await ask(breaker) is Kind.BREAKER_OPEN
    await trio.sleep(4.9)
    assert await ask(breaker) is Kind.BREAKER_OPEN
    await trio.sleep(0.1)
    assert await ask(breaker) is Kind.CONNECT


@pytest.mark.parametrize("reason", [CLIENT_GONE, None])
async def test_a_cancelled_probe_gives_its_place_back_and_counts_for_nothing(
    reason: str | None, autojump_clock
) -> None:
    breaker, bottom = await opened()
    bottom.act = hang
    await trio.sleep(5)
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, breaker)
            await trio.sleep(0.5)
            scope.cancel(reason=reason)
    assert snapshot(breaker)[0] is State.HALF_OPEN
    bottom.act = answering(200)
    assert await ask(breaker) == 200
    assert snapshot(breaker)[0] is State.CLOSED


@pytest.mark.parametrize("make", [lambda: Overflow("full"), lambda: BudgetSpent("late"), lambda: RuntimeError("bug")])
async def test_what_never_reached_the_upstream_counts_for_nothing(make, autojump_clock) -> None:
    breaker, bottom = await opened()
    closed = Breaker(Bottom(raising(make)))
    for _ in range(30):
        with pytest.raises(type(make())):
            await closed.handle_async_request(asked())
    assert snapshot(closed) == (State.CLOSED, 0, 0)
    bottom.act = raising(make)
    await trio.sleep(5)
    with pytest.raises(type(make())):
        await breaker.handle_async_request(asked())
    bottom.act = answering(200)
    assert await ask(breaker) == 200


async def test_an_answer_that_is_too_big_is_an_answer(autojump_clock) -> None:
    breaker, bottom = await opened()
    bottom.act = raising(lambda: TooBig("too big"))
    await trio.sleep(5)
    assert await ask(breaker) is Kind.TOO_BIG
    assert snapshot(breaker)[0] is State.CLOSED


async def test_errors_of_a_transport_that_is_not_ours_count_as_what_they_are() -> None:
    breaker = Breaker(Bottom(raising(lambda: httpx.ReadTimeout("slow"))), min_requests=2)
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            await breaker.handle_async_request(asked())
    assert await ask(breaker) is Kind.BREAKER_OPEN
    ours = Breaker(Bottom(raising(lambda: httpx.LocalProtocolError("our fault"))), min_requests=2)
    for _ in range(3):
        with pytest.raises(httpx.LocalProtocolError):
            await ours.handle_async_request(asked())


async def test_alone_each_origin_has_its_own_state() -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        return complete(503 if request.url.host == "bad" else 200)

    breaker = Breaker(Bottom(act), min_requests=2)
    for _ in range(2):
        assert await ask(breaker, "http://bad") == 503
    assert await ask(breaker, "http://bad") is Kind.BREAKER_OPEN
    assert await ask(breaker, "http://good:81") == 200
    assert snapshot(breaker, "http://good:81") == (State.CLOSED, 1, 0)


async def test_the_attempts_are_judged_where_they_are_told_of_and_the_call_is_not_judged_again() -> None:
    class Retrying(httpx.AsyncBaseTransport):
        def __init__(self, attempt: Attempt) -> None:
            self.attempt = attempt

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            state = call_state(request)
            assert state is not None
            for state.cause in ("first", "retry", "hedge"):
                response = await self.attempt.handle_async_request(request)
            return response

    breaker = Breaker(Retrying(Attempt(Bottom(answering(502)))))
    facts = call_facts()
    request = asked(facts)
    await breaker.handle_async_request(request)
    assert snapshot(breaker) == (State.CLOSED, 3, 3)
    assert [attempt.cause for attempt in facts.attempts] == ["first", "retry", "hedge"]
    assert call_state(request) is None


async def test_when_it_opens_a_call_under_way_is_told_to_make_no_more_attempts() -> None:
    blocked = []

    async def act(request: httpx.Request) -> httpx.Response:
        state = call_state(request)
        assert state is not None
        assert state.ticket is not None
        blocked.append(state.ticket.blocked)
        state.ticket.attempted(0.0, None, 500)
        blocked.append(state.ticket.blocked)
        return complete(500)

    breaker = Breaker(Bottom(act), min_requests=2)
    for _ in range(2):
        await ask(breaker)
    assert blocked == [False, False, False, True]


@pytest.mark.parametrize(("error", "failures"), [(None, 0), (httpx.ReadError("broke"), 1)])
async def test_a_streamed_response_is_judged_when_it_is_over(error: Exception | None, failures: int) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces(error))

    async with httpx.AsyncClient(transport=Breaker(Bottom(act))) as client:
        breaker = client._transport
        assert isinstance(breaker, Breaker)
        async with client.stream("GET", "http://upstream") as response:
            assert snapshot(breaker) == (State.CLOSED, 0, 0)
            try:
                assert await response.aread() == b"piece" * 3
            except httpx.ReadError:
                assert error is not None
        assert snapshot(breaker) == (State.CLOSED, 1, failures)


async def test_a_streamed_probe_is_judged_by_its_head_so_that_nobody_waits_for_its_end(autojump_clock) -> None:
    breaker, bottom = await opened()

    async def act(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces())

    bottom.act = act
    await trio.sleep(5)
    response = await breaker.handle_async_request(asked())
    assert not response.is_closed
    assert snapshot(breaker)[0] is State.CLOSED
    await response.aclose()


def test_numbers_that_make_no_breaker_are_told_of_at_once() -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        Breaker(Bottom(hang), failure_ratio=2)


# Through the composition: an upstream that hangs never gives an error of its own, every call ends by a deadline.

ROUTE = 'calls.c = { upstream = "u", path = "/" }\n'


class Hanging:
    """An upstream that hangs behind the layers that a stack has, and requests of a route to it."""

    def __init__(self, route: str = ROUTE) -> None:
        self.bottom = Bottom(hang)
        self.breaker = Breaker(Bulkhead(Balance(Attempt(self.bottom), ["http://a", "http://b"])))
        self.plan = plan(route)
        self.records = Records()

    async def request(self, deadline: float) -> Result:
        inputs = Inputs(path={"id": "1"})
        return await run(self.plan, inputs, request_facts(deadline), {"u": self.breaker}, self.records)

    async def requests(self, number: int, deadline: float = 1.0) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(self.request, deadline)


async def test_a_hanging_upstream_opens_its_breaker_though_every_call_ends_by_the_routes_deadline(
    autojump_clock,
) -> None:
    hanging = Hanging()
    await hanging.requests(19)
    assert snapshot(hanging.breaker) == (State.CLOSED, 19, 19)
    await hanging.requests(1)
    assert snapshot(hanging.breaker)[0] is State.OPEN
    before = trio.current_time()
    result = await hanging.request(1.0)
    assert trio.current_time() == before
    assert result.failure is not None
    assert (result.failure.kind, result.failure.status) == (Kind.BREAKER_OPEN, 503)
    assert len(hanging.bottom.requests) == 20
    assert hanging.bottom.in_flight == 0
    # Its probe hangs too, and opens it anew by the same rule.
    await trio.sleep(5)
    await hanging.requests(1)
    assert snapshot(hanging.breaker)[0] is State.OPEN
    hanging.bottom.act = answering(200)
    await trio.sleep(5)
    await hanging.requests(1)
    assert snapshot(hanging.breaker)[0] is State.CLOSED


async def test_so_does_one_whose_calls_end_by_their_own_timeout(autojump_clock) -> None:
    hanging = Hanging('calls.c = { upstream = "u", path = "/", timeout = "100ms" }\n')
    await hanging.requests(20, deadline=5.0)
    assert snapshot(hanging.breaker)[0] is State.OPEN


async def test_calls_that_the_deadline_left_less_than_half_of_it_are_not_the_upstreams_fault(autojump_clock) -> None:
    """The second call begins when the first has taken most of the time."""
    hanging = Hanging(
        'calls.first = { upstream = "u", path = "/first" }\n'
        'calls.late = { upstream = "u", path = "/late", when = "first || `true`" }\n'
    )

    async def act(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/late":
            return await hang(request)
        await trio.sleep(0.6)
        return complete(200, b"{}")

    hanging.bottom.act = act
    await hanging.requests(30)
    assert len(hanging.bottom.requests) == 60
    assert snapshot(hanging.breaker) == (State.CLOSED, 30, 0)


async def test_calls_whose_client_has_gone_never_count_however_long_they_hung(autojump_clock) -> None:
    hanging = Hanging()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(hanging.request, 10.0)
            await trio.sleep(9)
            scope.cancel(reason=CLIENT_GONE)
    assert len(hanging.bottom.requests) == 40
    assert snapshot(hanging.breaker) == (State.CLOSED, 0, 0)


async def test_calls_that_spent_their_time_in_the_bulkheads_queue_do_not_count(autojump_clock) -> None:
    hanging = Hanging()
    hanging.breaker = Breaker(Bulkhead(Attempt(hanging.bottom), max_concurrency=1))
    await hanging.requests(30)
    assert snapshot(hanging.breaker) == (State.CLOSED, 1, 1)
