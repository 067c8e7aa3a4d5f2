"""Time limits of stream calls, calls that become streams, and what a stream call counts for its upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.support.upstream.raw_server import Handler, Peer, response
from tests.support.upstream.stream_calls import Streams, head, rest_of, streaming
from umbel.core.call import StreamingCall, StreamLimits
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState
from umbel.upstream import BreakerRules, CallTimedOut, ReadTimedOut, Retry, WriteTimedOut
from umbel.upstream.client import StreamStatistics
from umbel.upstream.pool.connection import INLINE_MAX


def sending(*pieces: tuple[float, bytes]) -> Handler:
    """Answer a request with pieces, each after so many seconds, and leave the connection open."""

    async def handler(peer: Peer) -> None:
        await peer.read_request()
        for seconds, piece in pieces:
            await trio.sleep(seconds)
            await peer.send(piece)
        await peer.closed()

    return handler


async def silent(peer: Peer) -> None:
    await peer.closed()


pushing = pytest.mark.parametrize("pushing", [False, True], ids=["pulled", "pushed"])


def streams_of(streams: Streams) -> StreamStatistics:
    return streams.client.statistics().streams


# first_byte


@pushing
async def test_no_head_within_the_first_byte_limit_fails_the_call_and_counts(pushing: bool, autojump_clock) -> None:
    rules = BreakerRules(min_requests=1)
    async with streaming(silent, pushing=pushing, breaker=rules, retry=Retry()) as streams:
        with pytest.raises(CallTimedOut, match="first-byte"):
            await streams.open(stream_limits=StreamLimits(first_byte=2.0))
        assert trio.current_time() - streams.made[0].context.request.started_at == 2.0
        assert [each.kind for each in streams.made[0].attempts] == [Kind.TIMEOUT]
        assert streams.dial.open == 0
        assert streams.client.breaker is not None
        assert streams.client.statistics().breaker.state is BreakerState.OPEN


async def test_the_first_byte_limit_counts_the_wait_for_a_place(autojump_clock) -> None:
    async with streaming(silent, max_concurrency=1) as streams:
        first = streams.start()
        with pytest.raises(CallTimedOut):
            await streams.open(stream_limits=StreamLimits(first_byte=2.0))
        assert streams.made[0].attempts == []
        first.cancel("client-gone")


@pushing
async def test_a_slow_body_is_not_limited_by_the_first_byte_limit(pushing: bool, autojump_clock) -> None:
    async with streaming(sending((1.0, head(6)), (5.0, b"one"), (5.0, b"two")), pushing=pushing) as streams:
        call = await streams.open(stream_limits=StreamLimits(first_byte=2.0))
        assert await rest_of(call) == b"onetwo"


@pytest.mark.parametrize(("after", "fails"), [(1.5, False), (2.5, True)])
async def test_the_first_byte_limit_begins_anew_after_the_requests_body(
    after: float, fails: bool, autojump_clock
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            await trio.sleep(10)
            yield piece

    async with streaming(sending((after, response(b"ok")))) as streams:
        limits = StreamLimits(first_byte=2.0, idle=3.0)
        if fails:
            with pytest.raises(CallTimedOut):
                await streams.open(method="POST", body=body(), stream_limits=limits)
            assert trio.current_time() - streams.made[0].context.request.started_at == 22.0
        else:
            assert await rest_of(await streams.open(method="POST", body=body(), stream_limits=limits)) == b"ok"


# idle


@pushing
async def test_an_idle_response_fails_after_the_idle_limit(pushing: bool, autojump_clock) -> None:
    limits = StreamLimits(first_byte=10.0, idle=3.0)
    async with streaming(sending((5.0, head(6)), (2.0, b"one"), (5.0, b"two")), pushing=pushing) as streams:
        call = await streams.open(stream_limits=limits)
        await trio.sleep(2.5)  # Nothing is received meanwhile, so no limit runs.
        assert await call.receive() == b"one"
        began = trio.current_time()
        with pytest.raises(ReadTimedOut):
            await call.receive()
        assert trio.current_time() - began == 3.0
        assert [each.kind for each in streams.made[0].attempts] == [Kind.TIMEOUT]
        assert streams.held() == (0, 0, 0, 1)


@pytest.mark.parametrize("content", [None, b"x" * INLINE_MAX * 2], ids=["streamed", "in memory"])
async def test_an_upstream_that_does_not_read_fails_the_send_after_the_idle_limit(
    content: bytes | None, autojump_clock
) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async with streaming(deaf, lockstep=True, cut=True) as streams:
        with pytest.raises(WriteTimedOut):
            await streams.open(
                method="POST",
                content=content,
                body=None if content else body(),
                stream_limits=StreamLimits(first_byte=30.0, idle=3.0),
            )
        streams.nursery.cancel_scope.cancel(reason="the test is over")


# lifetime


@pushing
@pytest.mark.parametrize("receiving", [True, False])
async def test_the_lifetime_ends_a_response_and_is_no_failure_of_the_upstream(
    pushing: bool, receiving: bool, autojump_clock
) -> None:
    rules = BreakerRules(min_requests=1)
    async with streaming(sending((1.0, head(6)), (1.0, b"one")), pushing=pushing, breaker=rules) as streams:
        call = await streams.open(stream_limits=StreamLimits(lifetime=4.0))
        assert await call.receive() == b"one"
        if not receiving:
            await trio.sleep(5)
        for _ in range(2):
            with pytest.raises(CallTimedOut, match="lifetime"):
                await call.receive()
        assert [(each.kind, each.ended_at - each.started_at) for each in streams.made[0].attempts] == [
            (Kind.CANCELLED, 4.0)
        ]
        assert streams.client.statistics().breaker.failures == 0
        assert streams.dial.open == 0


async def test_the_lifetime_ends_a_call_without_a_head(autojump_clock) -> None:
    async with streaming(silent) as streams:
        with pytest.raises(CallTimedOut, match="lifetime"):
            await streams.open(stream_limits=StreamLimits(first_byte=9.0, lifetime=4.0))
        assert [each.kind for each in streams.made[0].attempts] == [Kind.TIMEOUT]


# Streams


@pushing
async def test_a_call_that_becomes_a_stream_gives_its_place_to_a_waiting_call(pushing: bool, autojump_clock) -> None:
    endless = sending((0.0, head(6) + b"one"), (60.0, b"two"))
    async with streaming(endless, pushing=pushing, max_concurrency=1, max_streams=1) as streams:
        call = await streams.open()
        assert isinstance(call, StreamingCall)
        waits = streams.start(mode="stream")
        assert call.become_stream()
        assert call.become_stream(), "a second time changes nothing"
        second = (await waits.end()).become_stream  # type: ignore[attr-defined]
        assert not second()
        assert streams_of(streams) == StreamStatistics(limit=1, open=1, refused=1)
        assert streams.client.statistics().bulkhead.in_flight == 1
        assert await rest_of(call) == b"onetwo"
        assert streams_of(streams).open == 0
        assert second()
        waits.call.cancel("client-gone")
        assert (streams_of(streams).open, streams.client.statistics().bulkhead.in_flight) == (0, 0)


@pytest.mark.parametrize("ends", ["received", "closed", "cancelled", "lifetime", "own limit", "broken"])
async def test_each_end_of_a_stream_gives_it_back_and_closes_its_connection(ends: str, autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(6) + b"one")
        await trio.sleep(10)
        if ends != "broken":
            await peer.send(b"two")
            await peer.closed()

    limits = StreamLimits(lifetime=5.0 if ends == "lifetime" else None)
    own = 5.0 if ends == "own limit" else None
    async with streaming(handler) as streams:
        call = await streams.open(stream_limits=limits, limit=own, budget=60)
        assert call.become_stream()
        assert streams.held() == (0, 1, 1, 0)
        if ends == "closed":
            await call.aclose()
        elif ends == "cancelled":
            call.cancel("client-gone")
            assert streams.dial.open == 0
        elif ends == "received":
            assert await rest_of(call) == b"onetwo"
        else:
            with pytest.raises(UpstreamError):
                await rest_of(call)
        assert streams.held() == (0, 0, 0, 1)
        assert call.become_stream(), "a call that has ended changes nothing"
        assert (streams_of(streams).open, call.response_ended) == (0, ends == "received")


async def test_a_stream_counts_for_the_breaker_once_by_its_head(autojump_clock) -> None:
    async with streaming(sending((0.0, head(6))), breaker=BreakerRules(min_requests=1)) as streams:
        call = await streams.open(stream_limits=StreamLimits(idle=5.0))
        assert streams.client.statistics().breaker.requests == 0
        call.become_stream()
        assert streams.client.statistics().breaker.requests == 1
        with pytest.raises(ReadTimedOut):
            await call.receive()
        breaker = streams.client.statistics().breaker
        assert (breaker.requests, breaker.failures) == (1, 0)


@pushing
async def test_load_balancing_and_durations_count_a_response_until_its_head(pushing: bool, autojump_clock) -> None:
    async with streaming(sending((1.0, head(6)), (50.0, b"onetwo")), pushing=pushing) as streams:
        assert await rest_of(await streams.open()) == b"onetwo"
        ((cells,),) = [streams.client.attempt_counts.durations.values()]
        assert cells[-1] == 1.0
        assert [slot.usual for slot in streams.client.balance._slots] == [1.0]
        (attempt,) = streams.made[0].attempts
        assert attempt.ended_at - attempt.started_at == 51.0


# What came with the head


@pushing
async def test_what_came_with_the_head_is_taken_without_waiting(pushing: bool, autojump_clock) -> None:
    async with streaming(sending((0.0, head(9) + b"one"), (1.0, b"two"), (1.0, b"end")), pushing=pushing) as streams:
        call = await streams.open()
        assert (call.response_ended, call.take_rest(), call.take_rest()) == (False, b"one", b"")
        assert await call.receive() == b"two"
        assert streams.held() == (1, 1, 1, 0)
        assert await call.receive() == b"end"
        assert (call.response_ended, call.take_rest(), await call.receive()) == (True, b"", b"")


@pushing
@pytest.mark.parametrize("apart", [False, True])
async def test_trailers_are_there_after_the_end(pushing: bool, apart: bool, autojump_clock) -> None:
    pieces = [head(None) + b"3\r\none\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]
    handler = sending((0.0, pieces[0]), (1.0, pieces[1])) if apart else sending((0.0, b"".join(pieces)))
    async with streaming(handler, pushing=pushing) as streams:
        call = await streams.open()
        assert call.response_ended is not apart
        assert call.trailers == ([] if apart else [(b"X-Sum", b"x-sum", b"1")]) or apart
        assert await rest_of(call) == b"one"
        assert list(call.trailers) == [(b"X-Sum", b"x-sum", b"1")]


@pushing
async def test_interim_responses_are_reported_as_they_come(pushing: bool, autojump_clock) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    got: list[tuple[float, int, list[bytes]]] = []
    handler = sending((1.0, hints), (1.0, hints + b"HTTP/1.1 102 Processing\r\n\r\n" + response(b"ok")))
    async with streaming(handler, pushing=pushing) as streams:
        began = trio.current_time()

        def note(status: int, fields: object) -> None:
            got.append((trio.current_time() - began, status, [value for _, _, value in fields]))  # type: ignore[attr-defined]

        call = await streams.open(on_interim=note)
        assert (call.status, await rest_of(call)) == (200, b"ok")
    assert got == [(1.0, 103, [b"</a>"]), (2.0, 103, [b"</a>"]), (2.0, 102, [])]


@pushing
@pytest.mark.parametrize("status", [b"103 Early Hints", b"200 OK"])
@pytest.mark.parametrize("uploads", [False, True])
async def test_a_callback_may_cancel_the_call(pushing: bool, status: bytes, uploads: bool, autojump_clock) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(1)
            yield b"x"

    raw = b"HTTP/1.1 103 Early Hints\r\n\r\n" + (response(b"ok") if status.startswith(b"2") else b"")
    async with streaming(sending((1.0, raw)) if not uploads else answering_early(raw), pushing=pushing) as streams:
        body = endless() if uploads else None
        made = streams.start(mode="stream", body=body, on_interim=lambda *_: made.cancel("client-gone"))
        streams.made.append(made)
        await made.over.wait()
        assert streams.dial.open == 0
        await trio.testing.wait_all_tasks_blocked()
        assert streams.held() == (0, 0, 0, 1)
        assert [each.kind for each in made.attempts] == [Kind.CLIENT_GONE]


def answering_early(raw: bytes) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(raw)
        await peer.closed()

    return handler


async def test_bodiless_stream_calls_on_a_kept_connection_need_no_task(autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(head(6) + b"one")
            await peer.send(b"two")

    async with streaming(handler, pushing=True) as streams:
        assert await rest_of(await streams.open()) == b"onetwo"
        made = streams.start(mode="stream")
        streams.made.append(made)
        tasks = len(streams.nursery.child_tasks)
        while made.result is None:
            assert len(streams.nursery.child_tasks) == tasks
            await trio.lowlevel.checkpoint()
        assert await rest_of(made.call) == b"onetwo"  # type: ignore[arg-type]
        assert [each.reused for each in made.attempts] == [True]
