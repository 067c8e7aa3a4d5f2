"""Heap trim: after a burst of requests or uploads, at most once a minute, and not while requests would wait long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from umbel.net.timers import TimerQueue
from umbel.server.process import gc_tuning, heap_trim
from umbel.server.process.heap_trim import BURST_MIN, BUSY_TRIM_MAX, DELAY_S, GROWTH_MIN, INTERVAL_S, HeapTrimmer


class Requests:
    """Counts requests in flight as a server does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_flight = 0
        self.resident = 0
        self.trims: list[float] = []
        self.timers = TimerQueue()
        monkeypatch.setattr(heap_trim, "resident", lambda: self.resident)
        monkeypatch.setattr(gc_tuning, "applied", lambda: True)

        async def at_once(work: object, **options: object) -> None:
            self.trims.append(trio.current_time())
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
        self.trimmer = HeapTrimmer(self.timers, lambda: self.in_flight)

    def come(self, count: int) -> None:
        for _ in range(count):
            self.in_flight += 1
            if self.in_flight > self.trimmer.peak:
                self.trimmer.peak_rose(self.in_flight)

    def go(self, count: int) -> None:
        for _ in range(count):
            self.in_flight -= 1
            if self.in_flight <= self.trimmer.burst_ends_at:
                self.trimmer.burst_ended(self.in_flight)


@asynccontextmanager
async def counting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Requests]:
    requests = Requests(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.timers.run)
        nursery.start_soon(requests.trimmer.run)
        await wait_all_tasks_blocked()
        yield requests
        nursery.cancel_scope.cancel(reason="tested")


async def test_the_heap_is_trimmed_after_a_burst_has_ended(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.go(74)
        await trio.sleep(10)
        assert requests.trims == []
        requests.go(1)
        await trio.sleep(10)
        assert requests.trims == [pytest.approx(10 + DELAY_S)]
        requests.go(25)
        await trio.sleep(1000)
        assert len(requests.trims) == 1


@pytest.mark.parametrize("count", [1, BURST_MIN - 1])
async def test_a_few_requests_cause_no_trim(
    count: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        for _ in range(10):
            requests.come(count)
            requests.go(count)
            await trio.sleep(100)
        assert requests.trims == []


async def test_the_heap_is_trimmed_at_most_once_a_minute(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        for _ in range(100):
            requests.come(100)
            requests.go(100)
            await trio.sleep(2)
        pauses = [later - sooner for sooner, later in zip(requests.trims, requests.trims[1:], strict=False)]
        assert len(requests.trims) == 4
        assert min(pauses) >= INTERVAL_S


async def test_a_large_trim_waits_until_no_request_is_in_flight(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.resident = BUSY_TRIM_MAX + 1
        requests.go(99)
        await trio.sleep(100)
        assert requests.trims == []
        requests.go(1)
        await trio.sleep(10)
        assert len(requests.trims) == 1


async def test_a_burst_that_follows_at_once_delays_the_trim(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.go(100)
        requests.come(100)
        await trio.sleep(100)
        assert requests.trims == []
        requests.go(100)
        await trio.sleep(100)
        assert len(requests.trims) == 1


async def test_the_heap_is_trimmed_after_uploads_that_grew_the_process(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.trimmer.long_requests_ended()
        await trio.sleep(10)
        assert requests.trims == []
        requests.resident = GROWTH_MIN
        requests.trimmer.long_requests_ended()
        await trio.sleep(10)
        assert requests.trims == [pytest.approx(10 + DELAY_S)]


async def test_a_burst_that_ends_while_a_trim_for_uploads_is_scheduled_is_trimmed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.trimmer.long_requests_ended()
        requests.come(100)
        requests.go(100)
        await trio.sleep(10)
        assert len(requests.trims) == 1


async def test_without_gc_tuning_the_heap_is_not_trimmed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        monkeypatch.setattr(gc_tuning, "applied", lambda: False)
        requests.come(100)
        requests.go(100)
        await trio.sleep(100)
        assert requests.trims == []


def test_trim_heap_returns_whether_memory_was_returned() -> None:
    assert heap_trim.trim_heap() in (True, False)
