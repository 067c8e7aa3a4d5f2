"""Mirrors: copies in flight and their bounds, their results and records, and their end."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composition.composing import Scripted, answer, facts
from tests.support.logs.records import Records
from tests.support.upstream.raw_server import Peer
from tests.support.upstream.stream_calls import head, streaming
from umbel.core.call import PreparedRequest
from umbel.core.events import CallEnded
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.upstream.mirrors import BYTES_MAX, COPIES_MAX, DROPPED_MAX, Mirrors, RequestCopy

Clock = trio.abc.Clock


async def hangs(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


async def breaks(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody listens")


def copy_of(content: bytes | None = None, timeout: float = 5.0) -> RequestCopy:
    prepared = PreparedRequest("GET", b"/x", (), content)
    return RequestCopy("v2", "x", lambda: prepared, facts(), timeout, None)


class Slow(Records):
    """A recorder that wants only slow successes."""

    slow_call = 1.0


async def test_a_copy_is_sent_and_its_response_is_dropped(autojump_clock: Clock) -> None:
    upstream, records = Scripted(answer(1)), Slow()
    async with Mirrors({"v2": TransportCaller(upstream)}, records) as mirrors:
        mirrors.send(copy_of())
        assert upstream.requests == []  # Nothing happens before the sender waits.
        await trio.testing.wait_all_tasks_blocked()
        assert mirrors.statistics()["v2"].results == {"ok": 1, "failed": 0, "overflow": 0, "cancelled": 0}
    assert upstream.targets == ["/x"]
    assert records.events == []


@pytest.mark.parametrize(
    ("handler", "kind", "state"),
    [(answer(1, 503), Kind.STATUS, "failed"), (breaks, Kind.INTERNAL, "failed"), (hangs, Kind.TIMEOUT, "failed")],
)
async def test_a_failed_copy_is_counted_and_recorded(handler, kind: Kind, state: str, autojump_clock: Clock) -> None:
    records = Slow()
    async with Mirrors({"v2": TransportCaller(Scripted(handler))}, records) as mirrors:
        mirrors.send(copy_of(timeout=0.5))
        await trio.sleep(1)
        assert mirrors.statistics()["v2"].results["failed"] == 1
    (record,) = records.events
    assert isinstance(record, CallEnded)
    assert (record.upstream, record.outcome.call, record.outcome.state) == ("v2", "x", state)
    assert record.outcome.failure is not None
    assert record.outcome.failure.kind is kind


async def test_a_slow_copy_is_recorded_as_a_success(autojump_clock: Clock) -> None:
    records = Slow()
    async with Mirrors({"v2": TransportCaller(Scripted(answer(1, after=2)))}, records) as mirrors:
        mirrors.send(copy_of())
        await trio.sleep(3)
    (record,) = records.calls
    assert (record.outcome.state, record.outcome.ended_at - (record.outcome.started_at or 0)) == ("value", 2)


@pytest.mark.parametrize(
    ("pieces", "result"),
    [
        ([head(2), b"ok"], "ok"),
        ([head(4, status=b"503 Busy"), b"busy"], "failed"),
        ([head(4), b"bro"], "failed"),
        ([head(DROPPED_MAX + 2**20), b"x" * (DROPPED_MAX + 2**19)], "ok"),
        ([b""], "failed"),
    ],
    ids=["whole", "5xx", "broken off", "too long", "no head"],
)
async def test_a_streamed_copy_is_dropped_as_it_comes(pieces: list[bytes], result: str, autojump_clock: Clock) -> None:
    async def serve(peer: Peer) -> None:
        while await peer.read_head():
            for piece in pieces:
                await peer.send(piece)
                await trio.sleep(0.1)
            return

    records = Records()
    async with streaming(serve) as streams, Mirrors({"v2": streams.client}, records) as mirrors:
        mirrors.send(copy_of()._replace(mode="stream"))
        await trio.sleep(3)
        found = mirrors.statistics()["v2"]
        assert (found.in_flight, found.results[result]) == (0, 1)  # type: ignore[literal-required]
        assert streams.held() == (0, 0, 0, 0)


async def test_a_streamed_copy_ends_after_its_time(autojump_clock: Clock) -> None:
    async def serve(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(9))
        await peer.closed()

    records = Records()
    async with streaming(serve) as streams, Mirrors({"v2": streams.client}, records) as mirrors:
        mirrors.send(copy_of(timeout=0.5)._replace(mode="stream"))
        await trio.sleep(1)
        assert mirrors.statistics()["v2"].results["failed"] == 1
        assert streams.dial.open == 0
    assert records.calls[0].outcome.failure is not None
    assert records.calls[0].outcome.failure.kind is Kind.TIMEOUT


async def test_copies_beyond_the_bound_are_not_made_and_counted(autojump_clock: Clock) -> None:
    upstream = Scripted(hangs)
    async with Mirrors({"v2": TransportCaller(upstream)}, Records()) as mirrors:
        for _ in range(COPIES_MAX + 20):
            mirrors.send(copy_of())
        await trio.testing.wait_all_tasks_blocked()
        found = mirrors.statistics()["v2"]
        assert (found.in_flight, found.results["overflow"], upstream.in_flight) == (COPIES_MAX, 20, COPIES_MAX)
        await trio.sleep(6)  # Their time is over, so there is room again.
        assert (mirrors.statistics()["v2"].in_flight, upstream.in_flight) == (0, 0)
        mirrors.send(copy_of())
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.in_flight == 1


async def test_the_bodies_of_the_copies_in_flight_are_bounded_together(autojump_clock: Clock) -> None:
    upstream = Scripted(hangs)
    async with Mirrors({"v2": TransportCaller(upstream)}, Records()) as mirrors:
        for size in (BYTES_MAX // 2, BYTES_MAX // 2, 1, 0):
            mirrors.send(copy_of(bytes(size)))
            await trio.testing.wait_all_tasks_blocked()
        found = mirrors.statistics()["v2"]
        assert (found.in_flight, found.bytes_in_flight, found.results["overflow"]) == (3, BYTES_MAX, 1)
        await trio.sleep(6)
        assert mirrors.statistics()["v2"].bytes_in_flight == 0


async def test_a_copy_that_cannot_be_made_of_the_values_is_counted_as_failed(autojump_clock: Clock) -> None:
    records = Records()
    async with Mirrors({"v2": TransportCaller(Scripted(answer(1)))}, records) as mirrors:
        mirrors.send(copy_of()._replace(prepare=lambda: None))
        await trio.testing.wait_all_tasks_blocked()
        assert mirrors.statistics()["v2"].results["failed"] == 1
    assert records.events == []


async def test_a_crash_is_recorded_and_ends_neither_the_mirrors_nor_another_copy(autojump_clock: Clock) -> None:
    def crash() -> PreparedRequest:
        raise LookupError("a bug")

    upstream, records = Scripted(answer(1, after=1)), Slow()
    async with Mirrors({"v2": TransportCaller(upstream)}, records) as mirrors:
        mirrors.send(copy_of())
        mirrors.send(copy_of()._replace(prepare=crash))
        await trio.sleep(2)
        assert mirrors.statistics()["v2"].results == {"ok": 1, "failed": 1, "overflow": 0, "cancelled": 0}
    (record,) = records.logged
    assert (record.event, record.level, type(record.error)) == ("mirror.crashed", "error", LookupError)


async def test_the_copies_in_flight_end_with_the_mirrors_and_later_ones_are_not_made(autojump_clock: Clock) -> None:
    upstream = Scripted(hangs)
    async with Mirrors({"v2": TransportCaller(upstream)}, Records()) as mirrors:
        mirrors.send(copy_of())
        await trio.testing.wait_all_tasks_blocked()
        mirrors.send(copy_of())  # Its task has not begun when the mirrors are closed.
    mirrors.send(copy_of())
    found = mirrors.statistics()["v2"]
    assert (found.in_flight, found.results["cancelled"], upstream.in_flight, len(upstream.requests)) == (0, 3, 0, 1)
