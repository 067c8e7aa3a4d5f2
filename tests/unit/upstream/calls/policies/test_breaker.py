"""The breaker of an upstream, through calls: what counts, what is refused, and the probe."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio
import trio.testing

from tests.support.composition.composing import facts as request_facts
from tests.support.composition.composing import plan
from tests.support.upstream.replica_sources import ChangingReplicas
from tests.support.upstream.scripted_upstream import HANGS, OK, RESET, Scripted, Step, in_parts, response, scripted
from umbel.composition.answer.result import Result
from umbel.composition.plan_run import run
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs
from umbel.policy.breaker import BreakerState
from umbel.upstream import BreakerRules, Hedge, Retry, Transport
from umbel.upstream.calls.failure_kind import CLIENT_GONE
from umbel.upstream.errors import (
    BreakerOpen,
    BudgetSpent,
    CallTimedOut,
    ConnectFailed,
    NameFailed,
    Overflow,
    ReadTimedOut,
    TooBig,
)

RULES = BreakerRules()
CLOSED = (BreakerState.CLOSED, 0, 0)


async def opened(upstream: Scripted) -> None:
    """Open the breaker by twenty failures."""
    upstream.script.steps = [Step(0.0, 503)]
    for _ in range(20):
        await upstream.ends_as(503)
    assert upstream.breaker[0] is BreakerState.OPEN
    upstream.script.made.clear()


async def refused(upstream: Scripted) -> BreakerOpen:
    """A call that the breaker must refuse at once."""
    before, made = trio.current_time(), len(upstream.script.made)
    error = await upstream.outcome()
    assert isinstance(error, BreakerOpen)
    assert isinstance(error, httpx.ConnectError)
    assert (error.kind, error.proxy_error) == (Kind.BREAKER_OPEN, "destination_unavailable")
    assert (trio.current_time(), len(upstream.script.made), upstream.attempts) == (before, made, [])
    return error


async def test_twenty_failures_open_the_breaker_for_five_seconds_and_a_probe_closes_it(autojump_clock) -> None:
    async with scripted([], breaker=RULES) as upstream:
        await opened(upstream)
        await trio.sleep(4.9)
        assert (await refused(upstream)).retry_after == pytest.approx(0.1)
        upstream.script.steps = [OK]
        await trio.sleep(0.11)
        await upstream.ends_as(200)
        assert upstream.breaker == CLOSED
        breaker = upstream.client.statistics().breaker
        assert breaker is not None
        assert (breaker.opened, breaker.refused) == (1, 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_while_a_probe_is_under_way_every_other_call_is_refused(streamed: bool, autojump_clock) -> None:
    async with scripted([], breaker=RULES) as upstream:
        await opened(upstream)
        upstream.script.steps = [Step(3.0, 200)]
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:
            got: list[httpx.Response] = []

            async def probe() -> None:
                got.append(await upstream.stream() if streamed else await upstream.call())

            nursery.start_soon(probe)
            await trio.sleep(1)
            assert (await refused(upstream)).retry_after is None
        # A streamed probe counts by its head, so that no call waits for its end.
        assert upstream.breaker == CLOSED
        assert (len(upstream.script.made), got[0].status_code, got[0].is_closed) == (1, 200, not streamed)
        await got[0].aread()
        assert upstream.breaker == CLOSED


async def test_a_failed_probe_opens_the_breaker_again(autojump_clock) -> None:
    async with scripted([], breaker=RULES) as upstream:
        await opened(upstream)
        upstream.script.steps = [Step(1.0, failed := ConnectFailed("no"))]
        await trio.sleep(5)
        await upstream.ends_as(failed)
        await refused(upstream)
        await trio.sleep(4.9)
        await refused(upstream)
        await trio.sleep(0.1)
        await upstream.ends_as(failed)


@pytest.mark.parametrize("reason", [CLIENT_GONE, None])
async def test_after_a_cancelled_probe_the_next_call_is_the_probe(reason, autojump_clock) -> None:
    async with scripted([], breaker=RULES) as upstream:
        await opened(upstream)
        upstream.script.steps = [HANGS]
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.call)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel(reason=reason)
        assert upstream.breaker[0] is BreakerState.HALF_OPEN
        upstream.script.steps = [OK]
        await upstream.ends_as(200)
        assert upstream.breaker[0] is BreakerState.CLOSED


async def test_after_a_probe_that_left_the_queue_the_next_call_is_the_probe(autojump_clock) -> None:
    steps = [HANGS, Step(0.0, 503), Step(0.0, 503), HANGS]
    rules = {"breaker": BreakerRules(min_requests=2), "max_concurrency": 2}
    async with scripted(steps, **rules) as upstream, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(upstream.call)
        await trio.sleep(5)
        assert upstream.breaker[0] is BreakerState.OPEN
        with trio.move_on_after(1):
            await upstream.call()
        assert isinstance(await upstream.outcome(limit=1.0), CallTimedOut)
        nursery.start_soon(upstream.call)
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.client.statistics().bulkhead.waiting == 1, "it is admitted, as the two before it were"
        assert isinstance(await upstream.outcome(), BreakerOpen)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [Overflow("full"), RuntimeError("bug")], ids=repr)
async def test_calls_that_were_not_sent_do_not_count(error: Exception, autojump_clock) -> None:
    async with scripted([Step(0.0, error)], breaker=RULES) as upstream:
        for _ in range(30):
            await upstream.ends_as(error)
            assert isinstance(await upstream.outcome(budget=0.0), BudgetSpent)
        assert upstream.breaker == CLOSED
        await opened(upstream)
        await trio.sleep(5)
        upstream.script.steps = [Step(0.0, error)]
        await upstream.ends_as(error)
        assert isinstance(await upstream.outcome(budget=0.0), BudgetSpent)
        upstream.script.steps = [OK]
        await upstream.ends_as(200)


async def test_a_response_over_the_body_limit_counts_as_a_success(autojump_clock) -> None:
    async with scripted([], breaker=RULES) as upstream:
        await opened(upstream)
        await trio.sleep(5)
        upstream.script.steps = [Step(0.0, response(200, b"x" * 11))]
        assert isinstance(await upstream.outcome(max_body=10), TooBig)
        assert upstream.breaker[0] is BreakerState.CLOSED


async def test_a_missing_replica_counts_as_a_failure(autojump_clock) -> None:
    async with Transport(ChangingReplicas(), breaker=BreakerRules(min_requests=2)) as transport:
        for _ in range(2):
            with pytest.raises(NameFailed):
                await transport.handle_async_request(httpx.Request("GET", "http://x"))
        with pytest.raises(BreakerOpen):
            await transport.handle_async_request(httpx.Request("GET", "http://x"))


async def test_each_attempt_of_a_call_counts_once(autojump_clock) -> None:
    rules = {"retry": Retry(), "hedge": Hedge(10.0), "breaker": RULES}
    async with scripted([Step(0.0, 502), Step(0.0, 503), RESET, RESET], **rules) as upstream:
        await upstream.outcome()
        assert upstream.causes == ["first", "hedge", "retry", "hedge"]
        assert upstream.breaker == (BreakerState.CLOSED, 4, 4)


@pytest.mark.parametrize(("broken", "failures"), [(False, 0), (True, 1)])
async def test_a_streamed_response_counts_at_its_end(broken: bool, failures: int, autojump_clock) -> None:
    first, last = in_parts(200, b"piece" * 3)
    async with scripted([Step(0.0, first if broken else (first, last))], breaker=RULES) as upstream:
        got = await upstream.stream()
        assert upstream.breaker == CLOSED
        if broken:
            with pytest.raises(httpx.RemoteProtocolError):
                await got.aread()
        else:
            assert await got.aread() == b"piece" * 3
        assert upstream.breaker == (BreakerState.CLOSED, 1, failures)


async def test_calls_that_hang_until_their_own_limit_open_the_breaker(autojump_clock) -> None:
    async with scripted([HANGS], breaker=BreakerRules(open_for=100.0), retry=Retry()) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(partial(upstream.outcome, limit=2.0))
        assert (upstream.breaker[0], len(upstream.script.made)) == (BreakerState.OPEN, 20)
        await refused(upstream)
    async with scripted([HANGS], breaker=BreakerRules(min_requests=2), timeout=2.0) as upstream:
        for kind in (CallTimedOut, CallTimedOut, BreakerOpen):
            with pytest.raises(kind):
                await upstream.transport.handle_async_request(httpx.Request("GET", "http://x"))


async def test_calls_that_hang_until_httpxs_read_timeout_open_the_breaker(autojump_clock) -> None:
    async with (
        scripted([HANGS], breaker=BreakerRules(min_requests=2)) as upstream,
        httpx.AsyncClient(transport=upstream.transport, timeout=1.0) as client,
    ):
        for kind in (ReadTimedOut, ReadTimedOut, BreakerOpen):
            with pytest.raises(kind):
                await client.get("http://x")


async def test_a_cancel_before_the_limit_does_not_count(autojump_clock) -> None:
    async with scripted([HANGS], breaker=BreakerRules(min_requests=1)) as upstream:
        for _ in range(30):
            with trio.move_on_after(1.0):
                await upstream.call(limit=2.0)
        assert upstream.breaker == CLOSED


@pytest.mark.parametrize("cancelled_after", [0.9, 2.0])
async def test_every_attempt_that_was_not_cut_counts(cancelled_after: float, autojump_clock) -> None:
    """Context of a call with a second until its request's deadline."""
    async with scripted([HANGS], breaker=RULES) as upstream:
        with trio.move_on_after(min(cancelled_after, 1.0)):
            await upstream.call(budget=1.0)
        late = cancelled_after > 1
        assert upstream.breaker == (BreakerState.CLOSED, late, late)


def test_invalid_breaker_rules_are_refused_when_the_client_is_made() -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        Transport(["http://x"], breaker=BreakerRules(failure_ratio=2))


# Through compositions: calls to an upstream that hangs end by a deadline, never by an error of the upstream.

ROUTE = 'calls.c = { upstream = "u", path = "/" }\n'


async def request(upstream: Scripted, deadline: float, route: str = ROUTE) -> Result:
    """A request of a route that calls the upstream."""
    inputs = Inputs(path={"id": "1"})
    return await run(plan(route), inputs, request_facts(deadline), {"u": upstream.client}, upstream.records)


async def requests(upstream: Scripted, number: int, deadline: float = 1.0, route: str = ROUTE) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(request, upstream, deadline, route)


async def test_calls_that_hang_until_the_routes_deadline_open_the_breaker(
    autojump_clock,
) -> None:
    async with scripted([HANGS], ["http://a", "http://b"], breaker=RULES) as upstream:
        await requests(upstream, 19)
        assert upstream.breaker == (BreakerState.CLOSED, 19, 19)
        await requests(upstream, 1)
        assert upstream.breaker[0] is BreakerState.OPEN
        before = trio.current_time()
        result = await request(upstream, 1.0)
        assert trio.current_time() == before
        assert result.failure is not None
        assert (result.failure.kind, result.failure.status) == (Kind.BREAKER_OPEN, 503)
        assert (len(upstream.script.made), upstream.script.working) == (20, 0)
        # The probe hangs as well, and opens the breaker again by the same rule.
        await trio.sleep(5)
        await requests(upstream, 1)
        assert upstream.breaker[0] is BreakerState.OPEN
        upstream.script.steps = [OK]
        await trio.sleep(5)
        await requests(upstream, 1)
        assert upstream.breaker[0] is BreakerState.CLOSED


async def test_calls_that_end_by_their_own_timeout_open_the_breaker(autojump_clock) -> None:
    async with scripted([HANGS], breaker=RULES) as upstream:
        route = 'calls.c = { upstream = "u", path = "/", timeout = "100ms" }\n'
        await requests(upstream, 20, 5.0, route)
        assert upstream.breaker[0] is BreakerState.OPEN


async def test_a_call_that_began_late_and_was_cut_by_the_deadline_does_not_count(autojump_clock) -> None:
    """The second call begins when the first has taken most of the time."""
    route = (
        'calls.first = { upstream = "u", path = "/first" }\n'
        'calls.late = { upstream = "u", path = "/late", when = "first || `true`" }\n'
    )
    steps = [*[Step(0.6, response(200, b"{}"))] * 30, HANGS]
    async with scripted(steps, breaker=RULES) as upstream:
        await requests(upstream, 30, route=route)
        assert len(upstream.script.made) == 60
        assert upstream.breaker == (BreakerState.CLOSED, 30, 0)


async def test_calls_whose_client_left_do_not_count(autojump_clock) -> None:
    async with scripted([HANGS], breaker=RULES) as upstream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests, upstream, 40, 10.0)
            await trio.sleep(9)
            nursery.cancel_scope.cancel(reason=CLIENT_GONE)
        assert (len(upstream.script.made), upstream.breaker) == (40, CLOSED)


async def test_calls_that_spent_their_time_in_the_queue_do_not_count(autojump_clock) -> None:
    async with scripted([HANGS], breaker=RULES, max_concurrency=1) as upstream:
        await requests(upstream, 30)
        assert upstream.breaker == (BreakerState.CLOSED, 1, 1)
