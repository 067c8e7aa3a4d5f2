"""Streamed responses: what is held until when, and every way of their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.upstream.memory_dial import MemoryStream
from tests.support.upstream.raw_server import Handler, Peer, response
from tests.support.upstream.stream_calls import CHUNKED, head, opened, rest_of, streaming
from umbel.core.call import Mode, StepTimeouts
from umbel.core.failure_kinds import Kind
from umbel.core.http.header_field import Field
from umbel.net.stream import Stream
from umbel.policy.breaker import BreakerState
from umbel.policy.gradient_limit import GradientLimit
from umbel.upstream import (
    BreakerRules,
    CallTimedOut,
    ConnectionReset,
    Hedge,
    Malformed,
    ReadTimedOut,
    Retry,
)
from umbel.upstream.pool.connection import INLINE_MAX
from umbel.upstream.replicas.origin import Origin

FREE = (0, 0, 0)
HELD = (1, 1, 1)


def sending(*pieces: bytes, after: float = 1.0, close: bool = True) -> Handler:
    """Answer a request with these pieces, the first at once and each next after so many seconds; then close."""

    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            for number, piece in enumerate(pieces):
                await trio.sleep(after if number else 0)
                await peer.send(piece)
            if close:
                return

    return handler


FRAMED = {
    "by its length": [head(6), b"one", b"two"],
    "in chunks": [head(None), b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"],
    "by the connection's end": [b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"two"],
}

# The whole response


@pytest.mark.parametrize("pieces", FRAMED.values(), ids=FRAMED)
async def test_a_streamed_response_gives_back_everything_at_its_end(pieces: list[bytes], autojump_clock) -> None:
    async with streaming(sending(*pieces)) as streams:
        began = trio.current_time()
        call = await streams.open()
        assert (call.status, trio.current_time() - began) == (200, 0.0)
        for piece, seconds in ((b"one", 1.0), (b"two", 2.0)):
            assert streams.held() == (*HELD, 0)
            assert (await call.receive(), trio.current_time() - began) == (piece, seconds)
        assert await call.receive() == b""
        assert streams.held() == (*FREE, 1)
        (attempt,) = streams.made[0].attempts
        assert (attempt.status, attempt.kind, attempt.ended_at) == (200, None, call.ended_at)
        assert await call.receive() == b""
        assert streams.held() == (*FREE, 1)


async def test_the_head_of_a_streamed_response_is_unchanged_and_nothing_is_decoded(autojump_clock) -> None:
    async with streaming(sending(head(2, b"Content-Encoding: br", b"X-A: 1"), b"\x01\x02")) as streams:
        call = await streams.open()
        assert [(name, value) for _, name, value in call.fields] == [
            (b"content-length", b"2"),
            (b"content-encoding", b"br"),
            (b"x-a", b"1"),
        ]
        assert call.head is not None
        assert (call.head.version, call.head.reason) == (b"HTTP/1.1", b"OK")
        assert await rest_of(call) == b"\x01\x02"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_response_that_came_whole_with_its_head_has_ended_the_call(method: str, autojump_clock) -> None:
    content = b"x" * INLINE_MAX * 2 if method == "POST" else None

    async def handler(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(response(b"whole"))

    async with streaming(handler) as streams:
        for number in range(2):
            call = await streams.open(method=method, content=content)
            assert streams.held() == (*FREE, number + 1)
            assert call.response_ended
            call.cancel("client-gone")
            assert await rest_of(call) == b"whole"
            assert streams.held() == (*FREE, number + 1)
        assert [each.reused for made in streams.made for each in made.attempts] == [False, True]


@pytest.mark.parametrize(
    ("method", "raw"),
    [("HEAD", head(9)), ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"), ("GET", head(0))],
    ids=["HEAD", "204", "no bytes"],
)
@pytest.mark.parametrize("closed", [True, False])
async def test_the_connection_of_a_response_without_a_body_is_reused(
    method: str, raw: bytes, closed: bool, autojump_clock
) -> None:
    async with streaming(sending(raw, close=False)) as streams:
        call = await streams.open(method=method)
        assert streams.held() == (*FREE, 1)
        if closed:
            await call.aclose()
        else:
            assert await call.receive() == b""
        assert streams.held() == (*FREE, 1)
        assert streams.client.statistics().pool.idle == 1


async def test_bytes_after_the_end_close_the_connection_and_not_fail_the_response(autojump_clock) -> None:
    async with streaming(sending(head(3), b"oneHTTP/1.1")) as streams:
        assert await rest_of(await streams.open()) == b"one"
        pool = streams.client.statistics().pool
        assert (pool.idle, pool.excess) == (0, 1)


async def test_only_receive_reads_from_the_connection(autojump_clock) -> None:
    sent: list[int] = []

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(3))
        for number in range(3):
            await peer.send(b"%d" % number)
            sent.append(number)

    async with streaming(handler, lockstep=True) as streams:
        call = await streams.open()
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert sent == [*range(number)]
            assert await call.receive() == b"%d" % number
        assert await call.receive() == b""


async def test_the_place_is_released_when_the_response_has_been_received(autojump_clock) -> None:
    async with streaming(sending(head(3), b"one"), max_concurrency=1) as streams:
        call = await streams.open()
        waits = streams.start()
        await trio.sleep(10)
        assert waits.result is None
        assert await rest_of(call) == b"one"
        assert (await waits.end()).content == b"one"


async def test_streamed_calls_are_not_coalesced(autojump_clock) -> None:
    async with streaming(sending(response(b"one")), coalesce=True) as streams:
        calls = [await streams.open() for _ in range(2)]
        assert [await rest_of(call) for call in calls] == [b"one", b"one"]
        assert len(streams.dial.streams) == 2


# Responses that are not received to their end


async def test_closing_a_stream_early_closes_the_connection_without_a_failure(autojump_clock) -> None:
    async with streaming(sending(head(6), b"one", b"two"), breaker=BreakerRules(min_requests=1)) as streams:
        call = await streams.open()
        assert await call.receive() == b"one"
        for _ in range(2):
            await call.aclose()
            assert streams.held() == (*FREE, 1)
            assert streams.dial.open == 0
        (attempt,) = streams.made[0].attempts
        assert (attempt.status, attempt.kind) == (200, None)
        breaker = streams.client.statistics().breaker
        assert breaker is not None
        assert (breaker.requests, breaker.failures) == (1, 0)


async def test_closing_a_stream_before_its_head_cancels_the_call(autojump_clock) -> None:
    async with streaming(sending(head(3), b"one")) as streams:
        made = streams.start(mode="stream")
        streams.made.append(made)
        await made.call.aclose()  # type: ignore[attr-defined]
        assert streams.held()[:2] == (0, 0)
        await trio.sleep(10)
        assert made.result is None
        assert [each.kind for each in made.attempts] == [Kind.CANCELLED]


@pytest.mark.parametrize("mode", ["stream", "whole"])
async def test_a_cancel_in_the_turn_of_the_connect_sends_nothing(
    mode: Mode, monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    got: list[bytes] = []
    connected = trio.Event()
    send_all = MemoryStream.send_all

    async def send_now(self: MemoryStream, data: bytes) -> None:
        """As a socket that takes all bytes at once."""
        with trio.CancelScope(shield=True):
            await send_all(self, data)

    monkeypatch.setattr(MemoryStream, "send_all", send_now)

    async def handler(peer: Peer) -> None:
        got.append(await peer.read_head() or peer.buffer)

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        stream = await streams.dial(origin, timeout)
        await connected.wait()
        return stream

    async with streaming(handler, dial=dial) as streams:
        made = streams.start(method="POST", mode=mode)
        await trio.testing.wait_all_tasks_blocked()
        connected.set()
        made.cancel("client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b""]


@pytest.mark.parametrize("receiving", [True, False])
async def test_a_cancel_within_the_body_gives_back_everything_and_makes_receive_raise(
    receiving: bool, autojump_clock
) -> None:
    async with streaming(sending(head(6), b"one", b"two", after=10.0)) as streams, trio.open_nursery() as nursery:
        call = await streams.open()

        async def receive() -> None:
            assert await call.receive() == b"one"
            if not receiving:
                await trio.sleep(5)
            with pytest.raises(ConnectionReset, match="client-gone"):
                await call.receive()

        nursery.start_soon(receive)
        await trio.sleep(12)
        call.cancel("client-gone")
        assert streams.held() == (*FREE, 1)
        assert streams.dial.open == 0
        (attempt,) = streams.made[0].attempts
        assert (attempt.status, attempt.kind) == (200, Kind.CLIENT_GONE)


async def test_a_cancel_of_the_task_that_receives_cancels_the_call(autojump_clock) -> None:
    async with streaming(sending(head(6), b"one", b"two")) as streams:
        call = await streams.open()
        with trio.move_on_after(0.5) as scope:
            await call.receive()
        assert scope.cancelled_caught
        assert streams.held() == (*FREE, 1)
        assert [each.kind for each in streams.made[0].attempts] == [Kind.CANCELLED]


BROKEN: dict[str, tuple[list[bytes], Kind]] = {
    "inside its length": ([head(6), b"one"], Kind.MALFORMED),
    "inside a chunk": ([CHUNKED, b"3\r\non"], Kind.MALFORMED),
    "a chunk that is none": ([CHUNKED, b"zz\r\n"], Kind.MALFORMED),
}


@pytest.mark.parametrize(("pieces", "kind"), BROKEN.values(), ids=BROKEN)
async def test_a_response_that_breaks_off_fails_and_is_not_repeated(
    pieces: list[bytes], kind: Kind, autojump_clock
) -> None:
    rules = BreakerRules(min_requests=1)
    async with streaming(sending(*pieces), breaker=rules, retry=Retry(), hedge=Hedge(after=0.5)) as streams:
        call = await streams.open()
        with pytest.raises(Malformed) as caught:
            await rest_of(call)
        assert streams.held() == (*FREE, 1)
        assert streams.dial.open == 0
        (attempt,) = streams.made[0].attempts
        assert (attempt.status, attempt.kind) == (200, kind)
        assert call.error is not None
        assert call.error.__traceback__ is None, "it would hold the call that holds it"
        with pytest.raises(Malformed) as again:
            await call.receive()
        assert str(again.value) == str(caught.value)
        breaker = streams.client.statistics().breaker
        assert breaker is not None
        assert (breaker.requests, breaker.failures) == (1, 1)
        await call.aclose()
        assert len(streams.dial.streams) == 1


@pytest.mark.parametrize("receiving", [True, False])
async def test_the_calls_own_limit_applies_until_the_last_byte(
    receiving: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    learned: list[float] = []
    monkeypatch.setattr(GradientLimit, "ended", lambda _, now, seconds, in_use: learned.append(seconds))
    async with streaming(sending(head(6), b"one", b"two", after=2.0), max_concurrency="auto") as streams:
        began = trio.current_time()
        call = await streams.open(limit=3.0, budget=60)
        assert await call.receive() == b"one"
        if not receiving:
            await trio.sleep_until(began + 3.5)
            assert streams.held() == (*FREE, 1)
        for _ in range(2):
            with pytest.raises(CallTimedOut):
                await call.receive()
        assert trio.current_time() - began == (3.0 if receiving else 3.5)
        assert [(each.kind, each.ended_at - began) for each in streams.made[0].attempts] == [(Kind.TIMEOUT, 3.0)]
        assert learned == [0.0], "its head says how long the upstream takes, and nothing else"


async def test_an_error_status_does_not_count_for_the_learned_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    learned: list[float] = []
    monkeypatch.setattr(GradientLimit, "ended", lambda _, now, seconds, in_use: learned.append(seconds))
    async with streaming(sending(head(0, status=b"500 Broken")), max_concurrency="auto") as streams:
        await rest_of(await streams.open())
    assert learned == []


async def test_a_calls_own_connect_timeout_replaces_the_upstreams(autojump_clock) -> None:
    limits: list[float | None] = []

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        limits.append(timeout)
        return await streams.dial(origin, timeout)

    async with streaming(sending(head(0)), dial=dial, connect_timeout=3.0) as streams:
        for steps in (None, StepTimeouts(read=1.0), StepTimeouts(connect=2.0)):
            await rest_of(await streams.open(steps=steps))
    assert limits == [3.0, 3.0, 2.0]


async def test_httpxs_read_timeout_limits_each_piece(autojump_clock) -> None:
    steps = StepTimeouts(read=1.5)
    async with streaming(sending(head(9), b"one", b"two", b"end", after=1.0)) as streams:
        assert await rest_of(await streams.open(steps=steps)) == b"onetwoend"
    async with streaming(sending(head(9), b"one", b"two", after=2.0)) as streams:
        call = await streams.open(steps=steps)
        with pytest.raises(ReadTimedOut):
            await call.receive()
        assert trio.current_time() - call.context.request.started_at == 1.5


async def test_closing_the_client_breaks_a_streamed_response(autojump_clock) -> None:
    async with trio.open_nursery() as nursery:
        async with streaming(sending(head(6), b"one", b"two"), cut=True) as streams:
            call = await streams.open()
            assert await call.receive() == b"one"

            async def receive() -> None:
                with pytest.raises(ConnectionReset):
                    await call.receive()

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        assert streams.held() == (*FREE, 1)


@pytest.mark.parametrize(("status", "state"), [(b"200 OK", BreakerState.CLOSED), (b"500 Broken", BreakerState.OPEN)])
async def test_a_streamed_probe_of_the_breaker_counts_by_its_head(
    status: bytes, state: BreakerState, autojump_clock
) -> None:
    async def handler(peer: Peer) -> None:
        if peer.number:
            await peer.read_head()
            await peer.send(head(3, status=status))
            await peer.closed()

    async with streaming(handler, breaker=BreakerRules(min_requests=1, open_for=5.0)) as streams:
        assert isinstance((await streams.start().end()).error, ConnectionReset)
        await trio.sleep(6)
        call = await streams.open()
        breaker = streams.client.statistics().breaker
        assert breaker is not None
        assert (breaker.state, breaker.requests) == (state, 0 if state is BreakerState.CLOSED else 1)
        await call.aclose()
        assert streams.client.statistics().breaker == breaker, "it is not counted once more"


# Retries and hedges


def by_number(*answers: tuple[float, list[bytes]]) -> Handler:
    """The n-th connection answers with the n-th of these pieces, the first after so many seconds."""

    async def handler(peer: Peer) -> None:
        if await peer.read_head():
            after, pieces = answers[peer.number]
            await trio.sleep(after)
            for piece in pieces:
                await peer.send(piece)
            await peer.closed()

    return handler


OK = [head(2), b"ok"]
BUSY = [head(4, status=b"503 Busy"), b"busy"]


async def test_a_head_that_is_retried_is_closed_and_the_next_is_passed_on(autojump_clock) -> None:
    async with streaming(by_number((0, BUSY), (0, OK)), retry=Retry(backoff=1.0)) as streams:
        call = await streams.open()
        assert call.status == 200
        assert streams.held() == (*HELD, 1)
        assert await rest_of(call) == b"ok"
        attempts = streams.made[0].attempts
        assert [(each.status, each.cause) for each in attempts] == [(503, "first"), (200, "retry")]
        assert streams.client.statistics().retry.mended == 1


async def test_the_head_after_the_last_retry_is_passed_on_with_its_body(autojump_clock) -> None:
    async with streaming(by_number((0, BUSY), (0, BUSY)), retry=Retry()) as streams:
        call = await streams.open()
        assert (call.status, await rest_of(call)) == (503, b"busy")
        assert [each.status for each in streams.made[0].attempts] == [503, 503]


async def test_a_cancel_during_the_pause_before_a_retry_closes_the_held_response(autojump_clock) -> None:
    async with streaming(by_number((0, BUSY), (0, OK)), retry=Retry(backoff=100.0, max_backoff=100.0)) as streams:
        made = streams.start(mode="stream")
        streams.made.append(made)
        await trio.testing.wait_all_tasks_blocked()
        assert streams.held() == (*HELD, 0)
        made.cancel("client-gone")
        assert streams.held() == (*FREE, 1)
        assert streams.dial.open == 0


@pytest.mark.parametrize(
    ("answers", "winner", "causes"),
    [
        ([(5.0, OK), (0.5, OK)], "hedge", ["first", "hedge"]),
        ([(1.5, OK), (5.0, OK)], "first", ["hedge", "first"]),
        ([(1.5, BUSY), (5.0, OK)], "hedge", ["first", "hedge"]),
        ([(1.5, OK), (0.2, BUSY)], "first", ["hedge", "first"]),
    ],
    ids=["the hedge's is first", "the first's is first", "the first fails", "the hedge fails"],
)
async def test_the_first_head_wins_a_race_and_the_other_response_is_closed(
    answers: list[tuple[float, list[bytes]]], winner: str, causes: list[str], autojump_clock
) -> None:
    async with streaming(by_number(*answers), hedge=Hedge(after=1.0)) as streams:
        call = await streams.open()
        await trio.testing.wait_all_tasks_blocked()
        assert call.status == 200
        assert streams.dial.open == 1 + streams.client.statistics().pool.idle
        assert streams.held() == (*HELD, 1)
        assert await rest_of(call) == b"ok"
        attempts = streams.made[0].attempts
        assert [each.cause for each in attempts] == causes
        assert attempts[-1].cause == winner
        loser = attempts[0]
        assert (loser.kind, loser.status) in ((Kind.CANCELLED, None), (None, 503))


async def test_of_two_heads_in_one_turn_one_is_passed_on_and_the_other_closed(autojump_clock) -> None:
    async with streaming(by_number((2.0, OK), (1.0, OK)), hedge=Hedge(after=1.0)) as streams:
        call = await streams.open()
        await trio.testing.wait_all_tasks_blocked()
        assert streams.dial.open == 1
        assert streams.held() == (*HELD, 1)
        assert await rest_of(call) == b"ok"
        assert sorted(each.kind or "" for each in streams.made[0].attempts) == ["", Kind.CANCELLED]


async def test_if_all_heads_are_failures_the_first_attempts_head_is_passed_on(autojump_clock) -> None:
    late = [head(4, status=b"502 Bad"), b"late"]
    async with streaming(by_number((1.5, BUSY), (1.0, late)), hedge=Hedge(after=1.0)) as streams:
        call = await streams.open()
        assert (call.status, await rest_of(call)) == (503, b"busy")
        assert [each.status for each in streams.made[0].attempts] == [502, 503]


ONCE_BUSY = [head(4, b"Connection: close", status=b"503 Busy"), b"busy"]
"""As BUSY; the retry gets another connection in any case."""


def hints(*names: str) -> list[bytes]:
    return [b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % name.encode() for name in names]


@pytest.mark.parametrize(
    ("answers", "policies", "passed"),
    [
        ([(0.5, [*hints("a"), *OK])], {}, ["a"]),
        ([(0, hints("a")), (0.5, [*hints("b"), *OK])], {"hedge": Hedge(after=1.0)}, ["b"]),
        ([(1.5, [*hints("a"), *OK]), (0, hints("b"))], {"hedge": Hedge(after=1.0)}, ["a"]),
        ([(0, [*hints("a"), *ONCE_BUSY]), (0, [*hints("b"), *OK])], {"retry": Retry()}, ["b"]),
        ([(0, [*hints("a"), *ONCE_BUSY]), (0, [*hints("b"), *ONCE_BUSY])], {"retry": Retry()}, ["b"]),
        ([(0, [*hints(*"abcdef"), *OK])], {"retry": Retry()}, ["c", "d", "e", "f"]),
        ([(0, hints("a"))], {"hold_interim": True, "limit": 1.0}, []),
    ],
    ids=["alone", "the hedge wins", "the first wins", "retried", "the last retry", "many", "failed"],
)
@pytest.mark.parametrize("content", [None, b"x" * 2 * INLINE_MAX], ids=["pushed", "started"])
async def test_only_interim_responses_of_the_passed_on_head_are_reported(
    answers: list[tuple[float, list[bytes]]],
    policies: dict[str, Any],
    passed: list[str],
    content: bytes | None,
    autojump_clock,
) -> None:
    got: list[str] = []

    def note(status: int, fields: Sequence[Field]) -> None:
        assert call_ended == [], "after the head"
        got.extend(value.decode().strip("<>") for _, name, value in fields if name == b"link")

    call_ended: list[int | None] = []
    context = {name: policies[name] for name in ("hold_interim", "limit") if name in policies}
    async with streaming(by_number(*answers), **({} if context else policies)) as streams:
        try:
            call = await opened(streams.client, "PUT", on_interim=note, content=content, **context)
        except CallTimedOut:
            assert passed == []
        else:
            call_ended.append(call.status)
            await rest_of(call)
    assert got == passed


async def test_a_cancel_by_a_held_interim_response_ends_the_call(autojump_clock) -> None:
    async with streaming(by_number((0, [*hints("a"), head(9)])), hedge=Hedge(after=1.0)) as streams:
        made = streams.start(mode="stream", on_interim=lambda *_: made.cancel("client-gone"))
        streams.made.append(made)
        await made.over.wait()
        assert streams.held() == (*FREE, 1)
        assert streams.dial.open == 0
