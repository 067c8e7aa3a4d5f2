"""Calls that follow redirects: hops are attempts under the call's policies, its place and its time."""

from __future__ import annotations

import pytest
import trio

from tests.support.upstream.scripted_upstream import HANGS, OK, RESET, Scripted, Step, scripted
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState
from umbel.upstream import BreakerRules, Hedge, Retry
from umbel.upstream.errors import CallTimedOut

MockClock = trio.testing.MockClock


def redirect(location: str, status: int = 302, seconds: float = 0.0) -> Step:
    return Step(seconds, status, {"location": location})


def lines(upstream: Scripted) -> list[bytes]:
    """The request line of each request that was received."""
    return [made.request.partition(b" HTTP/1.1")[0] for made in upstream.script.made if made.stream is not None]


async def test_each_hop_is_an_attempt_of_the_same_call(autojump_clock: MockClock) -> None:
    steps = [redirect("/b"), redirect("/c?d=1", 307), OK]
    async with scripted(steps) as upstream:
        response = await upstream.call(b"/a", headers={"authorization": "Basic x"}, follows=True)
    assert (response.status_code, lines(upstream)) == (200, [b"GET /a", b"GET /b", b"GET /c?d=1"])
    assert upstream.causes == ["first", "redirect", "redirect"]
    assert [attempt.status for attempt in upstream.attempts] == [302, 307, 200]
    assert all(b"authorization: Basic x" in made.request for made in upstream.script.made)
    assert upstream.client.attempt_counts.causes["redirect"] == 2


async def test_a_post_becomes_a_get_after_303_and_is_sent_again_after_307(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/b", 307), redirect("/c", 303), OK]) as upstream:
        sent = {"content-type": "text/plain"}
        await upstream.call(b"/a", method="POST", headers=sent, content=b"body", follows=True)
    assert lines(upstream) == [b"POST /a", b"POST /b", b"GET /c"]
    assert [made.request.endswith(b"\r\n\r\nbody") for made in upstream.script.made] == [True, True, False]
    assert b"content-type" not in upstream.script.made[2].request


async def test_a_loop_ends_with_the_sixth_redirect(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/a")]) as upstream:
        response = await upstream.call(b"/a", follows=True)
        assert (response.status_code, len(upstream.script.made)) == (302, 6)
        again = await upstream.call(b"/a")
        assert (again.status_code, len(upstream.script.made)) == (302, 7)


@pytest.mark.parametrize("location", ["http://evil.test/", "//evil.test/", "/%2e%2e/x", ""])
async def test_a_redirect_elsewhere_is_the_response(location: str, autojump_clock: MockClock) -> None:
    async with scripted([redirect(location)]) as upstream:
        response = await upstream.call(follows=True)
        assert (response.status_code, len(upstream.script.made)) == (302, 1)


async def test_the_time_of_the_call_holds_over_all_hops(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/a", seconds=0.4)]) as upstream:
        assert isinstance(await upstream.outcome(follows=True, limit=1.0), CallTimedOut)
        assert (trio.current_time(), len(upstream.script.made)) == (1.0, 3)
        assert upstream.kinds == [None, None, Kind.TIMEOUT]


async def test_a_hop_is_retried_and_hedged(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/b"), RESET, OK], retry=Retry(3)) as upstream:
        assert await upstream.outcome(follows=True) == 200
        assert upstream.causes == ["first", "redirect", "retry"]
        assert lines(upstream) == [b"GET /", b"GET /b", b"GET /b"]
    async with scripted([redirect("/b"), HANGS, OK], hedge=Hedge(0.25, 1)) as upstream:
        assert await upstream.outcome(follows=True) == 200
        assert upstream.causes == ["first", "redirect", "hedge"]


async def test_a_redirect_after_a_retry_may_be_retried_no_more_than_the_rules_say(autojump_clock: MockClock) -> None:
    steps = [Step(0.0, 503), redirect("/b"), Step(0.0, 503), OK]
    async with scripted(steps, retry=Retry(2)) as upstream:
        assert await upstream.outcome(follows=True) == 503
        assert upstream.causes == ["first", "retry", "redirect"]


async def test_an_open_breaker_ends_the_hops(autojump_clock: MockClock) -> None:
    rules = BreakerRules(min_requests=2, failure_ratio=0.5)
    async with scripted([redirect("/b"), RESET, RESET, OK], breaker=rules, retry=Retry(2)) as upstream:
        assert isinstance(await upstream.outcome(follows=True), Exception)
        assert upstream.breaker[0] is BreakerState.OPEN


async def test_a_hop_that_finds_no_replica_fails_the_call(autojump_clock: MockClock) -> None:
    refused = Step(0.1, ConnectionRefusedError("no"))
    async with scripted([redirect("/b"), refused]) as upstream:
        assert isinstance(await upstream.outcome(follows=True), Exception)


async def test_a_client_that_leaves_between_two_hops_leaves_nothing(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/b", seconds=0.1), HANGS]) as upstream:
        with trio.move_on_after(1):
            await upstream.call(follows=True)
        assert [made.closed_at is not None for made in upstream.script.made] == [True, True]


async def test_calls_that_follow_redirects_are_not_shared(autojump_clock: MockClock) -> None:
    async with scripted([redirect("/b", seconds=0.1), redirect("/b", seconds=0.1), OK], coalesce=True) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: upstream.call(follows=True))
        assert (len(upstream.script.made), upstream.client.statistics().coalesce.made) == (4, 0)
