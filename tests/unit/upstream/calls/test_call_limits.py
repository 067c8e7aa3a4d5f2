"""Time limits of a call: its own limit, and httpx's timeouts of single steps."""

from __future__ import annotations

import math
from contextlib import aclosing
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.scripted_upstream import HANGS, KEPT, OK, Scripted, Step, response, scripted
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner, StepTimeouts
from umbel.core.failure_kinds import Kind
from umbel.upstream import Hedge, Retry, Transport
from umbel.upstream.client import Policies
from umbel.upstream.errors import CallTimedOut, ConnectTimedOut, Overflow, ReadTimedOut, WriteTimedOut

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n"
PIECES = Step(1.0, (HEAD, b"piece", b"piece", b"piece"))
"""A head after a second, then a piece of the body each second."""


async def test_a_call_within_its_limit_passes(autojump_clock) -> None:
    async with scripted([PIECES], timeout=4.5) as upstream:
        assert (await upstream.call(limit=4.5)).content == b"piece" * 3
        streamed = await upstream.stream()
        assert await streamed.aread() == b"piece" * 3


@pytest.mark.parametrize("limit", [0.5, 2.5])
async def test_the_limit_ends_the_wait_for_the_head_and_for_the_body(limit: float, autojump_clock) -> None:
    async with scripted([PIECES]) as upstream:
        with pytest.raises(CallTimedOut, match=rf"the call's limit of {limit} s") as caught:
            await upstream.call(limit=limit)
        assert (caught.value.kind, caught.value.proxy_error) == (Kind.TIMEOUT, "http_response_timeout")
        assert isinstance(caught.value, httpx.TimeoutException)
        assert (trio.current_time(), upstream.script.made[0].closed_at, upstream.kinds) == (
            limit,
            limit,
            [Kind.TIMEOUT],
        )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"delay": 10.0}, [OK]),
        ({"retry": Retry()}, [Step(0.0, 503, {"retry-after": "0"}), HANGS]),
        ({"hedge": Hedge(0.25, 3)}, [HANGS]),
    ],
    ids=["connecting", "retried", "hedged"],
)
async def test_the_limit_includes_all_attempts_of_a_call(options: dict, steps: list[Step], autojump_clock) -> None:
    async with scripted(steps, **options) as upstream:
        assert isinstance(await upstream.outcome(limit=2.0), CallTimedOut)
        assert trio.current_time() == 2.0
        assert {each.kind for each in upstream.attempts if each.ended_at == 2.0} == {Kind.TIMEOUT}


async def test_the_limit_passes_in_the_pause_before_a_retry(autojump_clock) -> None:
    """The pause would end before the request's deadline and after the call's own limit: no retry is made."""
    async with scripted([Step(0.0, 503, {"retry-after": "1"}), HANGS], retry=Retry()) as upstream:
        await upstream.ends_as(503, limit=0.5)
        assert (trio.current_time(), upstream.client.statistics().retry.late) == (0.0, 1)


async def test_the_limit_passes_in_the_queue(autojump_clock) -> None:
    async with scripted([HANGS], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(partial(upstream.outcome, limit=3.0))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await upstream.outcome(limit=2.0), CallTimedOut)
        bulkhead = upstream.client.statistics().bulkhead
        assert (trio.current_time(), bulkhead.in_flight, bulkhead.waiting) == (2.0, 1, 0)
        assert upstream.attempts == []


async def test_the_limit_ends_a_streamed_response(autojump_clock) -> None:
    async with scripted([PIECES], timeout=2.5) as upstream:
        got = []
        streamed = await upstream.stream()
        with pytest.raises(CallTimedOut, match=r"the call's limit of 2\.5 s"):
            async for piece in streamed.aiter_raw():
                got.append(piece)  # noqa: PERF401 - the pieces before the cut are what is looked at
        assert (got, trio.current_time(), upstream.script.made[0].closed_at) == ([b"piece"], 2.5, 2.5)


async def test_the_limit_includes_the_time_of_a_slow_reader(autojump_clock) -> None:
    async with scripted([Step(0.0, HEAD + b"piece", holds=True)], timeout=2.5) as upstream:
        streamed = await upstream.stream()
        await trio.sleep(5)
        assert upstream.script.made[0].closed_at == 2.5
        with pytest.raises(CallTimedOut):
            await streamed.aread()


async def test_received_pieces_are_not_returned_after_the_limit(autojump_clock) -> None:
    pieces = (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", *[b"piece"] * 1000)
    async with scripted([Step(0.125, pieces)], timeout=2.0) as upstream:
        streamed = await upstream.stream()
        got = 0
        with pytest.raises(CallTimedOut):
            async for _ in streamed.aiter_raw():
                got += 1
                await trio.sleep(0.25)
        assert 6 <= got <= 8
        assert upstream.script.made[0].closed_at == 2.0


async def test_the_limit_ends_with_the_response(autojump_clock) -> None:
    async with scripted([PIECES], timeout=4.5) as upstream:
        got = await upstream.transport.handle_async_request(httpx.Request("GET", "http://x/"))
        await trio.sleep(10)
        assert await got.aread() == b"piece" * 3


async def test_a_streamed_response_that_is_left_is_closed(autojump_clock) -> None:
    async with scripted([PIECES], timeout=10) as upstream:
        streamed = await upstream.stream()
        async with aclosing(streamed.aiter_raw()) as pieces:
            assert await anext(pieces) == b"piece"
        await streamed.aclose()
        assert upstream.script.made[0].closed_at == trio.current_time()
        upstream.assert_nothing_left()


async def test_a_cancel_from_outside_is_not_a_timeout(autojump_clock) -> None:
    async with scripted([PIECES], timeout=10) as upstream:
        with trio.move_on_after(0.5) as scope:
            await upstream.call(limit=10)
        assert scope.cancelled_caught
        streamed = await upstream.stream()
        with trio.move_on_after(0.5) as scope:
            await streamed.aread()
        assert scope.cancelled_caught
        upstream.assert_nothing_left()


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        *(("connect_timeout", value, "connect_timeout must be more than 0") for value in (0, -1, math.nan)),
        *(("keepalive_expiry", value, "keepalive_expiry must be at least 0") for value in (-1, math.nan)),
        ("max_idle", -1, "max_idle must be at least 0"),
        ("max_body", -1, "max_body must be at least 0"),
    ],
)
def test_a_limit_out_of_range_is_refused(option: str, value: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Transport(["http://x"], **{option: value})
    if option in ("connect_timeout", "max_body"):
        with pytest.raises(ValueError, match=reason):
            Policies(**{option: value})


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_timeout_of_zero_or_less_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Transport(["http://x"], timeout=seconds)


# httpx's timeouts of single steps

BOTH = pytest.mark.parametrize("pushing", [True, False])


async def times_out(upstream: Scripted, at: float, kind: type[Exception], steps: StepTimeouts, **more) -> None:
    """Check that a call ends with ``error`` at that time and leaves no connection."""
    began = trio.current_time()
    with pytest.raises(kind):
        await upstream.call(steps=steps, **more)
    assert trio.current_time() - began == at
    assert upstream.script.in_flight == 0


@pytest.mark.parametrize(("steps", "limit"), [(None, 5.0), (StepTimeouts(read=1.0), 5.0), (StepTimeouts(0.5), 0.5)])
async def test_the_connect_timeout_is_passed_to_the_dialer(
    steps: StepTimeouts | None, limit: float, autojump_clock
) -> None:
    async with scripted([Step(1.0, late := ConnectTimedOut("late"))]) as upstream:
        await upstream.ends_as(late, steps=steps)
        assert upstream.script.made[0].connect_timeout == limit


async def test_the_pool_timeout_limits_the_wait_in_the_queue(autojump_clock) -> None:
    async with scripted([HANGS], max_concurrency=1) as upstream, trio.open_nursery() as nursery:
        nursery.start_soon(partial(upstream.outcome, budget=1000.0))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        error = await upstream.outcome(steps=StepTimeouts(pool=1.5))
        assert isinstance(error, Overflow)
        assert isinstance(error, httpx.PoolTimeout)
        assert trio.current_time() - before == 1.5
        assert upstream.client.statistics().bulkhead.waiting == 0
        # The pool timeout does not end a call that got its place in time.
        nursery.start_soon(partial(upstream.outcome, steps=StepTimeouts(pool=1500.0)))
        await trio.sleep(2000)
        assert upstream.kinds == [None]


@BOTH
async def test_the_read_timeout_limits_the_whole_head(pushing: bool, autojump_clock) -> None:
    dripping = Step(0.75, (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", b"C: d\r\n", b"Content-Length: 0\r\n\r\n"))
    async with scripted([HANGS], pushing=pushing) as upstream:
        await times_out(upstream, 1.0, ReadTimedOut, StepTimeouts(read=1.0))
    async with scripted([dripping], pushing=pushing) as upstream:
        await times_out(upstream, 1.0, ReadTimedOut, StepTimeouts(read=1.0))
        await upstream.ends_as(200, steps=StepTimeouts(read=3.5))


@BOTH
async def test_an_interim_response_restarts_the_read_timeout(pushing: bool, autojump_clock) -> None:
    interim = Step(0.75, (b"HTTP/1.1 103 Early Hints\r\n\r\n", response(200, b"")))
    async with scripted([interim], pushing=pushing) as upstream:
        await upstream.ends_as(200, steps=StepTimeouts(read=1.0))


@BOTH
async def test_the_read_timeout_limits_each_piece_of_the_body(pushing: bool, autojump_clock) -> None:
    async with scripted([PIECES], pushing=pushing) as upstream:
        await upstream.ends_as(200, steps=StepTimeouts(read=1.25))
    async with scripted([Step(0.5, (HEAD, b"piece"), holds=True)], pushing=pushing) as upstream:
        await times_out(upstream, 2.25, ReadTimedOut, StepTimeouts(read=1.25))


@BOTH
async def test_framing_that_drips_does_not_restart_the_read_timeout(pushing: bool, autojump_clock) -> None:
    framing = [bytes([byte]) for byte in b"0000000001;name=value\r\n"]
    chunked = Step(0.75, (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *framing))
    async with scripted([chunked], pushing=pushing) as upstream:
        await times_out(upstream, 1.75, ReadTimedOut, StepTimeouts(read=1.0))


@BOTH
async def test_a_request_that_cannot_be_sent_ends_by_the_write_timeout_only(pushing: bool, autojump_clock) -> None:
    async with scripted([OK._replace(deaf=True)], pushing=pushing) as upstream:
        steps = StepTimeouts(read=0.25, write=1.5)
        await times_out(upstream, 1.5, WriteTimedOut, steps, method="PUT", content=b"x" * 100_000)
        assert upstream.kinds == [Kind.TIMEOUT]


@BOTH
@pytest.mark.parametrize("step", [HANGS, HANGS._replace(dumb=True)])
async def test_the_read_timeout_applies_after_a_large_request_was_sent(
    step: Step, pushing: bool, autojump_clock
) -> None:
    """Also where the peer stopped reading it."""
    async with scripted([step], pushing=pushing) as upstream:
        await times_out(upstream, 0.5, ReadTimedOut, StepTimeouts(read=0.5), method="PUT", content=b"x" * 100_000)


async def test_each_attempt_has_step_timeouts_of_its_own_and_leaves_no_timer(autojump_clock) -> None:
    async with scripted([KEPT._replace(seconds=0.75, outcome=503)], retry=Retry(3)) as upstream:
        await upstream.ends_as(503, steps=StepTimeouts(read=1.0))
        assert len(upstream.attempts) == 3


async def test_the_timeouts_of_an_httpx_client_apply(autojump_clock) -> None:
    limits = httpx.Timeout(connect=0.5, read=1.0, write=2.0, pool=3.0)
    async with (
        scripted([Step(2.0, 200)]) as upstream,
        httpx.AsyncClient(transport=upstream.transport, timeout=limits) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await client.get("http://x/")
        assert upstream.script.made[0].connect_timeout == 0.5


async def test_an_httpx_request_without_timeouts_connects_without_a_limit(autojump_clock) -> None:
    async with (
        scripted([Step(2.0, 200)]) as upstream,
        httpx.AsyncClient(transport=upstream.transport, timeout=None) as client,
    ):
        assert (await client.get("http://x/")).status_code == 200
        assert upstream.script.made[0].connect_timeout == math.inf


async def test_a_request_with_httpx_timeouts_on_an_idle_connection_needs_no_task(autojump_clock) -> None:
    async with scripted([KEPT]) as upstream:
        await upstream.call()
        before = trio.lowlevel.current_statistics().tasks_living
        owner = SingleCallOwner()
        context = CallContext(owner, "c", "u", steps=StepTimeouts(read=1.0))
        call = upstream.client.new_call(PreparedRequest("GET", b"/", ()), context)
        call.start(trio.current_time())
        call.send()
        assert not owner._waiting
        assert trio.lowlevel.current_statistics().tasks_living == before
        call.cancel("the test is over")
