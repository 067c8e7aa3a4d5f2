"""Traces: retries, hedges, breakers and deadlines as a test sees them, in seconds of virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.testing.pages import one_call, page
from umbel.testing import delay, fail, gateway, hang, json


async def test_a_retry_is_seen_with_its_pause(autojump_clock: MockClock) -> None:
    config = one_call(upstream='retry = { attempts = 3, backoff = "100ms" }')
    async with gateway(config, {"u": fail("reset").times(2).then(delay(0.5).then(json(1)))}) as client:
        assert (await client.get("/")).json() == {"it": 1}
    call = client.trace().calls["it"]
    assert [(each.cause, each.outcome, each.kind, each.status) for each in call.attempts] == [
        ("first", "failed", "reset", None),
        ("retry", "failed", "reset", None),
        ("retry", "ok", None, 200),
    ]
    first, second, third = call.attempts
    assert (first.start, first.end) == (0, 0)
    assert 0 < second.start <= 0.1
    assert second.end < third.start <= 0.3
    assert third.end == pytest.approx(third.start + 0.5, abs=1e-6)
    assert (call.outcome, call.end) == ("ok", third.end)


async def test_the_pauses_are_those_of_the_seed(autojump_clock: MockClock) -> None:
    config = one_call(upstream="retry = { attempts = 3 }")

    async def pauses(seed: int) -> list[float]:
        async with gateway(config, {"u": fail("reset").times(2).then(json(1))}, seed=seed) as client:
            await client.get("/")
        return [each.start for each in client.trace().calls["it"].attempts]

    assert await pauses(1) == await pauses(1) != await pauses(2)


async def test_a_hedge_is_seen_and_its_loser_is_cancelled(autojump_clock: MockClock) -> None:
    async with gateway(one_call(upstream='hedge = { after = "200ms" }'), {"u": hang().then(json(1))}) as client:
        assert (await client.get("/")).json() == {"it": 1}
    first, hedge = client.trace().calls["it"].attempts
    assert (first.cause, first.outcome, first.reason, first.end) == ("first", "cancelled", "lost-hedge", 0.2)
    assert (hedge.cause, hedge.outcome, hedge.start) == ("hedge", "ok", 0.2)


async def test_a_breaker_opens_and_admits_a_probe_later(autojump_clock: MockClock) -> None:
    breaker = 'breaker = { min_requests = 2, failure_ratio = "50%", open_for = "5s" }'
    async with gateway(one_call(upstream=breaker), {"u": fail("reset").times(2).then(json(1))}) as client:
        for _ in range(3):
            await client.get("/")
        assert [trace.outcomes["it"] for trace in client.traces()] == ["reset", "reset", "breaker-open"]
        assert client.trace().calls["it"].attempts == ()
        assert len(client.received("u")) == 2
        await trio.sleep(5)
        assert (await client.get("/")).status_code == 200


async def test_the_deadline_cuts_a_call_and_the_route_answers(autojump_clock: MockClock) -> None:
    async with gateway(page(), {"users": delay(0.5).then(json(1)), "orders": delay(3).then(json(2))}) as client:
        await client.get("/page/7")
        await client.get("/page/8")
    trace = client.trace()
    assert (trace.outcome, trace.status, trace.duration, trace.start) == ("partial", 200, 2, 2)
    assert trace.reason == "the route's deadline passed"
    assert trace.timeline.deadline_reached
    assert trace.outcomes == {"profile": "ok", "orders": "timeout"}


async def test_attempts_of_an_each_name_their_items(autojump_clock: MockClock) -> None:
    config = one_call() + '[routes.calls.one]\nupstream = "u"\npath = "/{item}"\neach = "it"\n'
    async with gateway(config, {"u": {"/it": json([7, 8]), "/7": json("a"), "/8": delay(1).then(json("b"))}}) as client:
        assert (await client.get("/")).json() == {"it": [7, 8], "one": ["a", "b"]}
    assert [(each.item, each.end) for each in client.trace().calls["one"].attempts] == [(0, 0), (1, 1)]


async def test_a_trace_prints_as_a_table(autojump_clock: MockClock) -> None:
    async with gateway(page(), {"users": json(1), "orders": delay(0.5).then(fail("malformed"))}) as client:
        await client.get("/page/7")
    head, profile, attempt, orders, failed = str(client.trace()).splitlines()
    assert head == "GET /page/7 -> 200 partial after 0.5 s: without orders"
    assert profile.split() == ["profile", "0", "0", "ok"]
    assert attempt.split() == ["first", "0", "0", "ok", "200", "http://users:9001/base"]
    assert orders.split() == ["orders", "0", "0.5", "failed", "malformed"]
    assert failed.split() == ["first", "0", "0.5", "failed", "malformed", "http://orders:9002"]


async def test_without_a_request_there_is_no_trace(autojump_clock: MockClock) -> None:
    async with gateway(one_call(), {"u": json(1)}) as client:
        with pytest.raises(LookupError, match="no request has ended yet"):
            client.trace()
        with pytest.raises(KeyError, match="no upstream 'v'; it has u"):
            client.received("v")
