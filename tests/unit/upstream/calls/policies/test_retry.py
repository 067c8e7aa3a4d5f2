"""Retries: which results are retried, the pause, and the result of the call without a retry."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import httpx
import pytest
import trio

from tests.support.upstream.scripted_upstream import OK, RESET, Script, Scripted, Step, in_parts, scripted
from umbel.policy.breaker import BreakerState
from umbel.policy.retry import RetryRules
from umbel.policy.retry_budget import Budget, BudgetStatistics
from umbel.upstream import BreakerRules, Retry, RetryStatistics
from umbel.upstream.errors import BudgetSpent, ConnectFailed, ConnectionReset, Malformed, NameFailed, TlsFailed

REFUSED = Step(0.0, ConnectFailed("no"))
RETRY = Retry()


async def test_a_refused_connect_is_retried_after_the_backoff(autojump_clock) -> None:
    async with scripted([REFUSED, OK], retry=RETRY) as upstream:
        response = await upstream.call()
        assert (response.status_code, response.content) == (200, b"2")
        assert (upstream.script.starts, upstream.causes) == ([0.0, 0.025], ["first", "retry"])
        assert upstream.client.statistics().retry == RetryStatistics(retries=1, mended=1, late=0, blocked=0)


async def test_the_pause_doubles_up_to_its_bound_and_the_last_failure_is_the_result(autojump_clock) -> None:
    errors = [ConnectFailed(str(number)) for number in range(6)]
    async with scripted([Step(1.0, error) for error in errors], retry=Retry(attempts=6)) as upstream:
        await upstream.ends_as(errors[-1])
        made = upstream.attempts
    waits = [round(later.started_at - earlier.ended_at, 9) for earlier, later in pairwise(made)]
    assert waits == [0.025, 0.05, 0.1, 0.2, 0.25]


async def test_the_last_response_is_the_result_after_the_last_retry(autojump_clock) -> None:
    async with scripted([Step(0.0, 503), Step(0.0, 502), Step(0.0, 504)], retry=Retry(attempts=3)) as upstream:
        response = await upstream.call()
        assert (response.status_code, response.content, len(upstream.script.made)) == (504, b"3", 3)
        retries = upstream.client.statistics().retry
        assert (retries.retries, retries.mended) == (2, 0)


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [
        (200, 1),
        (404, 1),
        (429, 1),
        (500, 1),
        (502, 2),
        (503, 2),
        (504, 2),
        (ConnectFailed("x"), 2),
        (NameFailed("x"), 2),
        (TlsFailed("x"), 1),
        (Malformed("x"), 1),
        (BudgetSpent("x"), 1),
        (ConnectionReset("x", untouched=True), 2),
        (ConnectionReset("x"), 1),
        (RuntimeError("a bug"), 1),
    ],
    ids=repr,
)
async def test_each_result_is_retried_or_not_by_default(
    outcome: int | Exception, attempts: int, autojump_clock
) -> None:
    async with scripted([Step(0.0, outcome)], retry=RETRY) as upstream:
        await upstream.ends_as(outcome)
        assert len(upstream.script.made) == attempts


@pytest.mark.parametrize("pushing", [True, False])
@pytest.mark.parametrize(
    ("step", "attempts"),
    [
        (Step(0.0, b""), 2),
        (Step(0.0, b"", breaks=True), 2),
        (Step(0.0, b"HTTP", breaks=True), 1),
        (Step(0.0, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), 1),
        (Step(0.0, b"what is this\r\n\r\n"), 1),
    ],
)
async def test_a_reset_is_retried_only_before_the_first_byte_of_a_response(
    step: Step, attempts: int, pushing: bool, autojump_clock
) -> None:
    async with scripted([step], retry=RETRY, pushing=pushing) as upstream:
        assert isinstance(await upstream.outcome(), ConnectionReset | Malformed)
        assert len(upstream.script.made) == attempts


@pytest.mark.parametrize(
    ("method", "more", "attempts"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("PUT", {"content": b"whole"}, 2),
        ("DELETE", {}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("TRACE", {}, 1),
        ("POST", {"headers": {"Idempotency-Key": "k"}, "content": b"whole"}, 2),
    ],
)
async def test_a_sent_request_is_retried_only_if_it_is_idempotent(
    method: str, more: dict, attempts, autojump_clock
) -> None:
    async with scripted([RESET], retry=RETRY) as upstream:
        assert isinstance(await upstream.outcome(method=method, **more), ConnectionReset)
        assert len(upstream.script.made) == attempts


@pytest.mark.parametrize("error", [ConnectFailed("no"), NameFailed("no")], ids=repr)
async def test_an_unsent_request_of_any_method_is_retried(error: Exception, autojump_clock) -> None:
    async with scripted([Step(0.0, error), OK], retry=RETRY) as upstream:
        assert (await upstream.call(method="POST", content=b"once")).status_code == 200
        assert len(upstream.script.made) == 2


async def test_a_tls_failure_after_the_handshake_is_not_retried_for_a_post(autojump_clock) -> None:
    async with scripted([Step(0.0, TlsFailed("no"))], retry=RETRY) as upstream:
        assert isinstance(await upstream.outcome(method="POST", content=b"once"), TlsFailed)
        assert len(upstream.script.made) == 1


async def pieces() -> AsyncIterator[bytes]:
    yield b"piece"


@pytest.mark.parametrize(("method", "headers"), [("PUT", {}), ("POST", {"Idempotency-Key": "k"})])
async def test_a_request_with_a_streamed_body_is_not_retried(method: str, headers: dict, autojump_clock) -> None:
    async with scripted([RESET], retry=RETRY) as upstream:
        with pytest.raises(ConnectionReset):
            await upstream.stream(method, headers=headers, content=pieces())
        assert len(upstream.script.made) == 1
    async with scripted([REFUSED, OK], retry=RETRY) as upstream:
        response = await upstream.stream(method, headers=headers, content=pieces())
        assert (response.status_code, await response.aread()) == (200, b"2"), "nothing of it was taken at first"


async def test_a_configured_list_of_kinds_and_statuses_decides_what_is_retried(autojump_clock) -> None:
    rules = Retry(attempts=9, on=[500, 429])
    async with scripted([Step(0.0, 500), Step(0.0, 429), Step(0.0, 503)], retry=rules) as upstream:
        assert (await upstream.call()).status_code == 503
        assert len(upstream.script.made) == 3


@pytest.mark.parametrize("of_the_upstream", [Retry(attempts=1), None])
async def test_a_calls_own_retry_rules_replace_the_upstreams(
    of_the_upstream: RetryRules | None, autojump_clock
) -> None:
    async with scripted([REFUSED], retry=of_the_upstream) as upstream:
        assert isinstance(await upstream.outcome(retry=Retry(attempts=4)), ConnectFailed)
        assert len(upstream.script.made) == 4


# Time


async def test_no_retry_if_its_pause_would_end_after_the_deadline(autojump_clock) -> None:
    for budget, made in ((1.025, 1), (1.026, 2)):
        async with scripted([Step(1.0, 503)], retry=RETRY) as upstream:
            began = trio.current_time()
            await upstream.ends_as(503, budget=budget)
            assert len(upstream.script.made) == made
            if made == 1:
                assert trio.current_time() - began == 1.0
                retries = upstream.client.statistics().retry
                assert (retries.late, retries.retries) == (1, 0)


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "start"),
    [
        ({"retry-after": "2"}, 3.0),
        ({"retry-after": "0"}, 1.025),
        ({"retry-after": " 2 "}, 3.0),
        # A date is relative to the upstream's Date; without that, to the local clock.
        ({"date": DATE, "retry-after": "Sun, 06 Nov 1994 08:49:40 GMT"}, 4.0),
        ({"retry-after": DATE}, 1.025),
        # Invalid values.
        *[({"retry-after": each}, 1.025) for each in ("-1", "1.5", "soon", "2 s", "1e3", "Sun, 99 Nov 2026 10:00", "")],
    ],
)
async def test_the_pause_is_at_least_the_upstreams_retry_after(headers: dict, start: float, autojump_clock) -> None:
    async with scripted([Step(1.0, 503, headers), OK], retry=RETRY) as upstream:
        await upstream.ends_as(200, budget=10.0)
        assert upstream.script.starts == [0.0, start]


async def test_retry_after_as_a_date_without_a_date_field_uses_the_local_clock(autojump_clock) -> None:
    in_an_hour = Step(0.0, 503, {"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    async with scripted([in_an_hour, OK], retry=RETRY) as upstream:
        await upstream.ends_as(503, budget=3000.0)
        assert len(upstream.script.made) == 1
    async with scripted([in_an_hour, OK], retry=RETRY) as upstream:
        await upstream.ends_as(200, budget=4000.0)
        assert 3500 < upstream.script.starts[-1] - upstream.script.starts[0] < 3700


@pytest.mark.parametrize("deadline", [{"budget": 5.0}, {}])
async def test_a_retry_after_beyond_the_deadline_ends_the_call_with_that_response(
    deadline: dict, autojump_clock
) -> None:
    async with scripted([Step(1.0, 503, {"retry-after": "999999999"})], retry=RETRY) as upstream:
        await upstream.ends_as(503, **deadline)
        assert (len(upstream.script.made), trio.current_time()) == (1, 1.0)


# Budget and breaker


async def test_without_budget_the_first_response_is_the_result(autojump_clock) -> None:
    budget = Budget(0.2, 3)
    async with scripted([Step(1.0, 503)], retry=RETRY, budget=budget) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(upstream.call)
        # All fail at the same moment: four retries are 20 % of twenty calls, and no further one is granted.
        assert len(upstream.script.made) == 24
        statistics = upstream.client.statistics().budget
        assert (statistics.active, statistics.extra, statistics.denied) == (0, 0, 16)


async def test_a_retry_is_charged_to_the_budget_during_its_pause(autojump_clock) -> None:
    rules = Retry(backoff=1.0, max_backoff=1.0)
    async with scripted([REFUSED, REFUSED, OK], retry=rules, budget=Budget(0.0, 1)) as upstream:

        def budget() -> BudgetStatistics:
            return upstream.client.statistics().budget

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.call)
            await trio.sleep(0.5)
            assert (budget().active, budget().extra) == (1, 1)
            assert isinstance(await upstream.outcome(), ConnectFailed)
            await trio.sleep(0.55)
            assert budget().extra == 1, "while the attempt is under way too"
        assert budget() == BudgetStatistics(active=0, extra=0, limit=1, denied=1)


async def test_no_retry_while_the_breaker_is_open(autojump_clock) -> None:
    async with scripted([Step(1.0, 503)], retry=RETRY, breaker=BreakerRules(min_requests=1)) as upstream:
        await upstream.ends_as(503)
        assert (len(upstream.script.made), upstream.client.statistics().retry.blocked) == (1, 1)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("outcome", [503, ConnectFailed("no")])
async def test_a_breaker_that_opens_during_the_pause_stops_the_retry(
    outcome: int | Exception, streamed: bool, autojump_clock
) -> None:
    got: list[bytes | Exception] = []

    async def call(upstream: Scripted) -> None:
        try:
            response = await upstream.stream() if streamed else await upstream.call()
            got.append(await response.aread())
        except ConnectFailed as error:
            got.append(error)

    rules = {"retry": Retry(backoff=1.0, max_backoff=1.0), "breaker": BreakerRules(min_requests=2)}
    async with scripted([Step(0.0, outcome)], **rules) as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(call, upstream)
        await trio.sleep(0.5)
        for _ in range(2):
            nursery.start_soon(partial(upstream.outcome, retry=Retry(attempts=1)))
        await trio.sleep(0.4)
        assert (upstream.breaker[0], got) == (BreakerState.OPEN, [])
        await trio.sleep(0.2)
        assert got == [b"1" if outcome == 503 else outcome], "it can still be read"
        retries = upstream.client.statistics().retry
        assert (len(upstream.script.made), retries.blocked, retries.retries) == (3, 1, 0)


# Responses that are streams


async def test_a_response_that_is_replaced_is_closed_before_the_next_attempt(autojump_clock) -> None:
    class Looking(Script):
        async def __call__(self, origin, timeout):
            assert self.in_flight == 0
            return await super().__call__(origin, timeout)

    steps = [Step(0.0, in_parts(503, b"1")), Step(0.1, in_parts(200, b"2"))]
    async with scripted(steps, retry=RETRY, dial=Looking) as upstream:
        response = await upstream.stream()
        assert (response.status_code, upstream.script.in_flight) == (200, 1)
        assert await response.aread() == b"2"


async def test_a_cancel_during_the_pause_closes_the_held_response(autojump_clock) -> None:
    async with scripted([Step(0.0, in_parts(503, b"1", {"retry-after": "9"}))], retry=RETRY) as upstream:
        with trio.move_on_after(1) as scope:
            await upstream.stream()
        assert scope.cancelled_caught
        assert upstream.script.made[0].closed_at == 1.0
        upstream.assert_nothing_left()


# For any user of httpx


async def test_one_httpx_request_sent_by_many_tasks_is_a_call_each(autojump_clock) -> None:
    async with scripted([Step(1.0, 503)], retry=Retry(on=[503]), budget=Budget(100.0)) as upstream:
        shared = httpx.Request("GET", "http://x/")
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(upstream.transport.handle_async_request, shared)
        assert len(upstream.script.made) == 20
        assert shared.extensions == {}


async def test_failed_calls_leave_no_reference_cycles(autojump_clock) -> None:
    async def failing() -> None:
        with pytest.raises(ConnectionReset):
            await upstream.transport.handle_async_request(httpx.Request("GET", "http://x/"))

    async with scripted([RESET], retry=RETRY) as upstream:
        await failing()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await failing()
            gc.collect()
            assert [each for each in gc.garbage if isinstance(each, ConnectionReset)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_invalid_numbers_kinds_and_statuses_are_refused() -> None:
    for more in ({"attempts": 0}, {"backoff": -1}, {"on": ["timeout"]}, {"on": [200]}):
        with pytest.raises(ValueError, match=r"at least 1|not negative|cannot be retried"):
            Retry(**more)


async def test_the_pause_is_random(autojump_clock) -> None:
    starts: set[Any] = set()
    for seed in range(5):
        async with scripted([REFUSED, OK], retry=RETRY, rng=Random(seed)) as upstream:
            await upstream.call()
            starts.add(upstream.script.starts[1] - upstream.script.starts[0])
    assert len(starts) == 5
    assert all(0 <= start <= 0.025 for start in starts)
