"""The limits of an upstream: calls wait for their turns, and fail if these come too late."""

from __future__ import annotations

import gc
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.limited_calls import asked_by, limit, limiter, offsets, start_all, targets
from tests.support.upstream.scripted_upstream import HANGS, OK, RESET, Step, scripted
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner, StepTimeouts
from umbel.core.errors import NotRunningError
from umbel.core.failure_kinds import Kind
from umbel.upstream import Hedge, Retry
from umbel.upstream.calls.call import UpstreamCall
from umbel.upstream.errors import Overflow
from umbel.upstream.limit_queue import MARGIN, LimitQueue, Turn

SLOW = Step(0.01, 200)


def counts(queue: LimitQueue) -> tuple[int, int, int, int]:
    """Of a limit: the calls admitted, refused, delayed and waiting."""
    said = queue.limiter.statistics()  # type: ignore[attr-defined]
    return said.admitted, said.refused, said.delayed, said.waiting


async def test_calls_over_a_limit_wait_first_come_first_served(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(burst=2))
        start = trio.current_time()
        await start_all(nursery, upstream, "abcde", request=asked_by())
        assert counts(queue) == (2, 0, 3, 3)
        assert upstream.client.statistics().bulkhead.waiting == 3
        assert upstream.client.statistics().bulkhead.requests == 1
        await trio.sleep(10)
        assert (targets(upstream), offsets(upstream, start)) == ("abcde", [0, 0, 1, 2, 3])
        assert (counts(queue), queue.lines) == ((5, 0, 3, 0), {})


async def test_the_calls_of_one_key_do_not_wait_for_those_of_another(autojump_clock) -> None:
    async with scripted([SLOW], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        limit(upstream, limiter())
        await start_all(nursery, upstream, "abc", request=asked_by("a"))
        await start_all(nursery, upstream, "xyz", request=asked_by("x"))
        await trio.sleep(0.5)
        assert targets(upstream) == "ax"
        await trio.sleep(2)
        assert targets(upstream) == "axbycz"


async def test_a_call_without_an_inbound_request_counts_under_the_null_key(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream:
        (queue,) = limit(upstream, limiter(cost="query.n"))
        start = trio.current_time()
        for _ in range(2):
            response = await upstream.transport.handle_async_request(httpx.Request("GET", "http://any/"))
            assert response.status_code == 200
        assert offsets(upstream, start) == [0, 1]
        assert queue.limiter.decide_price(None, 1, trio.current_time()).admitted is False


async def test_a_call_whose_turn_is_too_late_fails_at_once(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter())
        start = trio.current_time()
        await start_all(nursery, upstream, "abc", request=asked_by(), limit=2.5)
        error = await upstream.outcome(request=asked_by(), limit=2.5, target=b"/d")
        assert isinstance(error, Overflow)
        assert (error.kind, error.retry_after, error.limit) == (Kind.OVERFLOW, 3.0, "l")
        assert "the limit l admits the call only in 3 s" in str(error)
        assert trio.current_time() == start
        await trio.sleep(5)
        assert targets(upstream) == "abc"
        assert counts(queue) == (3, 1, 2, 0)


@pytest.mark.parametrize("bound", ["the pool timeout", "the deadline of the request"])
async def test_the_turn_must_come_before_every_bound_of_the_call(bound: str, autojump_clock) -> None:
    async with scripted([SLOW]) as upstream:
        limit(upstream, limiter())
        await upstream.call(request=asked_by())
        before = trio.current_time()
        if bound == "the pool timeout":
            error = await upstream.outcome(request=asked_by(), steps=StepTimeouts(pool=0.5))
        else:
            error = await upstream.outcome(request=asked_by(budget=0.5))
        assert (type(error), trio.current_time()) == (Overflow, before)


async def test_a_streamed_call_waits_too(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream:
        limit(upstream, limiter())
        start = trio.current_time()
        for _ in range(2):
            response = await upstream.stream()
            await response.aread()
            await response.aclose()
        assert offsets(upstream, start) == [0, 1]
        with pytest.raises(Overflow):
            await upstream.stream(extensions={"timeout": httpx.Timeout(None, pool=0.5).as_dict()})


async def test_a_call_above_the_burst_fails_at_once_and_a_free_one_never_waits(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(cost="query.n"))
        start = trio.current_time()
        error = await upstream.outcome(request=asked_by(query={"n": 2}))
        assert "costs more than the limit l ever admits" in str(error)
        await start_all(nursery, upstream, "ab", request=asked_by(query={"n": 1}))
        await start_all(nursery, upstream, "c", request=asked_by(query={"n": 0}))
        assert trio.current_time() == start
        assert targets(upstream) == "ac"
        await trio.sleep(2)
        assert (targets(upstream), counts(queue)) == ("acb", (3, 1, 1, 0))


async def test_a_turn_put_off_from_outside_is_refused_if_it_comes_too_late(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(burst=1))
        start = trio.current_time()
        ended = await start_all(nursery, upstream, "abc", request=asked_by(), limit=3.5)
        # Another process has spent: the arrival time of the key moves by 2 s.
        queue.limiter._table.set("192.0.2.1", start + 3, start)  # type: ignore[attr-defined]
        await trio.sleep(10)
        assert offsets(upstream, start) == [0, 3]
        (late,) = [each for each in ended if isinstance(each[2], Overflow)]
        assert late[:2] == ("c", 3.0)
        assert (counts(queue), queue.lines) == ((2, 1, 2, 0), {})


async def test_a_call_behind_others_fails_before_its_deadline_if_they_are_put_off(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter())
        start = trio.current_time()
        await start_all(nursery, upstream, "ab", request=asked_by(), limit=100.0)
        ended = await start_all(nursery, upstream, "c", request=asked_by(), limit=2.5)
        queue.limiter._table.set("192.0.2.1", start + 50, start)  # type: ignore[attr-defined]
        await trio.sleep(10)
        ((_, at, error),) = ended
        assert (at, type(error)) == (round(2.5 - MARGIN, 2), Overflow)
        assert trio.current_time() - start == 10
        await trio.sleep(60)
        assert targets(upstream) == "ab"


async def test_a_key_that_was_evicted_begins_anew_and_its_calls_start_at_the_next_decision(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(rate="0.1/s", max_keys=1))
        start = trio.current_time()
        await start_all(nursery, upstream, "ab", request=asked_by("a"))
        await trio.sleep(1)
        await start_all(nursery, upstream, "x", request=asked_by("x"))
        assert queue.limiter.statistics().evicted == 1  # type: ignore[attr-defined]
        await trio.sleep(30)
        assert offsets(upstream, start) == [0, 1, 10]


async def test_a_call_stands_in_the_lines_of_all_its_limits(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, trio.open_nursery() as nursery:
        both = limit(upstream, limiter(), limiter("all", key="'all'", rate="2/s"))
        start = trio.current_time()
        await start_all(nursery, upstream, "ab", request=asked_by("a"))
        await start_all(nursery, upstream, "xy", request=asked_by("x"))
        await trio.sleep(10)
        # "x" came behind "b", and both spend of the second limit.
        assert (targets(upstream), offsets(upstream, start)) == ("abxy", [0, 1, 1.5, 2.5])
        assert [queue.lines for queue in both] == [{}, {}]


async def test_upstreams_with_one_limit_take_their_turns_in_one_order(autojump_clock) -> None:
    async with scripted([SLOW]) as upstream, scripted([SLOW]) as other, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter())
        start = trio.current_time()
        other.client.limits = type(upstream.client.limits)([queue], other.client.timers)  # type: ignore[misc]
        for target, letters in ((upstream, "a"), (other, "b"), (upstream, "c"), (other, "d")):
            await start_all(nursery, target, letters, request=asked_by())
        await trio.sleep(5)
        assert (offsets(upstream, start), offsets(other, start)) == ([0, 2], [1, 3])


async def test_a_call_that_is_due_spends_only_when_it_has_a_place(autojump_clock) -> None:
    async with scripted([Step(10.0, 200), SLOW], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(burst=3))
        start = trio.current_time()
        await start_all(nursery, upstream, "abcd", request=asked_by())
        assert (queue.limiter.statistics().admitted, upstream.client.statistics().bulkhead.waiting) == (1, 3)  # type: ignore[attr-defined]
        await trio.sleep(20)
        # All three of the burst are there when the place is, and no more.
        assert (targets(upstream), offsets(upstream, start)) == ("abcd", [0, 10, 10.01, 10.02])
        assert counts(queue)[0] == 4


async def test_a_call_with_a_place_that_is_not_due_any_more_gives_it_back_and_waits(autojump_clock) -> None:
    async with scripted([Step(10.0, 200), SLOW], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(burst=2))
        start = trio.current_time()
        await start_all(nursery, upstream, "ab", request=asked_by("a"))
        await start_all(nursery, upstream, "x", request=asked_by("x"))
        await trio.sleep(9)
        queue.limiter._table.set("a", trio.current_time() + 3, trio.current_time())  # type: ignore[attr-defined]
        await trio.sleep(10)
        assert (targets(upstream), offsets(upstream, start)) == ("axb", [0, 10.0, 11.0])
        assert queue.lines == {}


@pytest.mark.parametrize("leaver", ["the first", "one in the middle", "one that waits for a place"])
async def test_a_cancelled_call_leaves_nothing_spent_and_the_next_takes_its_turn(leaver: str, autojump_clock) -> None:
    places = 1 if leaver == "one that waits for a place" else 10
    async with scripted([Step(0.5, 200)], max_concurrency=places) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter(burst=2 if places == 1 else 1))
        start = trio.current_time()
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await upstream.call(b"/leaver", request=asked_by())

        await start_all(nursery, upstream, "a" if leaver != "one in the middle" else "ab", request=asked_by())
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        await start_all(nursery, upstream, "c", request=asked_by())
        scope.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        expected = {"the first": [0, 1], "one in the middle": [0, 1, 2], "one that waits for a place": [0, 0.5]}
        assert offsets(upstream, start) == expected[leaver]
        assert counts(queue)[0] == len(expected[leaver])
        assert (queue.lines, counts(queue)[3]) == ({}, 0)


async def test_a_retry_spends_and_is_not_made_if_the_limit_does_not_admit_it(autojump_clock) -> None:
    async with scripted([RESET], retry=Retry(4, backoff=0.1)) as upstream:
        (queue,) = limit(upstream, limiter(burst=3, rate="1/h"))
        error = await upstream.outcome(request=asked_by())
        assert (type(error).__name__, len(upstream.script.made)) == ("ConnectionReset", 3)
        assert counts(queue) == (3, 1, 0, 0)


async def test_a_retry_does_not_overtake_a_call_that_waits(autojump_clock) -> None:
    async with (
        scripted([Step(0.95, b""), OK], retry=Retry(2, backoff=0.05)) as upstream,
        trio.open_nursery() as nursery,
    ):
        limit(upstream, limiter())
        ended = await start_all(nursery, upstream, "ab", request=asked_by())
        await trio.sleep(5)
        assert [(letter, type(outcome).__name__) for letter, _, outcome in ended] == [
            ("a", "ConnectionReset"),
            ("b", "int"),
        ]


async def test_a_hedge_spends_and_is_not_made_if_the_limit_does_not_admit_it(autojump_clock) -> None:
    async with scripted([HANGS, HANGS], hedge=Hedge(0.5, 2)) as upstream:
        (queue,) = limit(upstream, limiter(burst=2, rate="1/h"))
        await upstream.outcome(request=asked_by(), limit=10.0)
        assert len(upstream.script.made) == 2
        assert counts(queue)[:2] == (2, 1)


async def test_a_redirect_that_the_limit_does_not_admit_is_not_followed(autojump_clock) -> None:
    steps = [Step(0.1, 302, {"location": "/b"})]
    async with scripted(steps) as upstream:
        limit(upstream, limiter(burst=2, rate="1/h"))
        response = await upstream.call(request=asked_by(), follows=True)
        assert (response.status_code, len(upstream.script.made)) == (302, 2)


async def test_coalesced_calls_spend_once(autojump_clock) -> None:
    async with scripted([OK], coalesce=True) as upstream, trio.open_nursery() as nursery:
        (queue,) = limit(upstream, limiter())
        await start_all(nursery, upstream, "aaa", request=asked_by())
        await trio.sleep(1)
        assert counts(queue) == (1, 0, 0, 0)


async def test_waiting_requests_count_for_the_room_of_the_queue_and_for_a_stall(autojump_clock) -> None:
    async with scripted([SLOW], max_queue=2) as upstream, trio.open_nursery() as nursery:
        limit(upstream, limiter(rate="1/m"))
        for letter in "abc":
            await start_all(nursery, upstream, letter, request=asked_by(), limit=1e5)
        error = await upstream.outcome(request=asked_by())
        assert isinstance(error, Overflow)
        assert "the queue is full" in str(error)
        nursery.cancel_scope.cancel()


async def test_a_call_that_waits_ends_with_its_client(autojump_clock) -> None:
    ended: list[Any] = []
    async with trio.open_nursery() as nursery, scripted([SLOW]) as upstream:
        limit(upstream, limiter())
        ended = await start_all(nursery, upstream, "abc", request=asked_by())
        await trio.sleep(0.5)
        upstream.assert_calls_over = upstream.assert_nothing_left = lambda: None  # type: ignore[method-assign]
    assert {letter: type(outcome) for letter, _, outcome in ended} == {
        "a": int,
        "b": NotRunningError,
        "c": NotRunningError,
    }


@pytest.mark.parametrize("kept", [Turn, UpstreamCall])
async def test_a_call_that_has_waited_leaves_no_reference_cycle(kept: type, autojump_clock) -> None:
    def left() -> int:
        return sum(isinstance(each, kept) for each in gc.get_objects())

    async with scripted([SLOW]) as upstream:
        limit(upstream, limiter(burst=1))
        gc.collect()
        gc.disable()
        try:
            before = left()
            async with trio.open_nursery() as nursery:
                await start_all(nursery, upstream, "abc", request=asked_by(), limit=2.5)
                owner = SingleCallOwner()
                context = CallContext(owner, "c", "u", asked_by(), trio.current_time() + 1, limit=1.0)
                ended = await owner.perform(upstream.client.new_call(PreparedRequest("GET", b"/", ()), context))
                assert isinstance(ended.error, Overflow)
                with trio.move_on_after(0.5):
                    await upstream.call(request=asked_by(), limit=3.5)
            del owner, context, ended
            upstream.contexts.clear()
            assert left() == before
        finally:
            gc.enable()
