"""When memory is given back: after a crowd of requests, seldom, and not beside requests that would wait for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from umbel.net.timers import TimerQueue
from umbel.server.process import crowd
from umbel.server.process import gc_tuning as garbage
from umbel.server.process.crowd import BESIDE_REQUESTS_MAX, CROWD_MIN, EVERY_S, GROWN_MIN, QUIET_S, Crowd


class Requests:
    """Requests that come and go, as a service counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_flight = 0
        self.resident = 0
        self.given: list[float] = []
        self.timers = TimerQueue()
        monkeypatch.setattr(crowd, "resident", lambda: self.resident)
        monkeypatch.setattr(garbage, "owned", lambda: True)

        async def at_once(work: object, **options: object) -> None:
            self.given.append(trio.current_time())
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
        self.crowd = Crowd(self.timers, lambda: self.in_flight)

    def come(self, count: int) -> None:
        for _ in range(count):
            self.in_flight += 1
            if self.in_flight > self.crowd.peak:
                self.crowd.grew(self.in_flight)

    def go(self, count: int) -> None:
        for _ in range(count):
            self.in_flight -= 1
            if self.in_flight <= self.crowd.gone_at:
                self.crowd.went(self.in_flight)


@asynccontextmanager
async def counting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Requests]:
    requests = Requests(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.timers.run)
        nursery.start_soon(requests.crowd.run)
        await wait_all_tasks_blocked()
        yield requests
        nursery.cancel_scope.cancel(reason="tested")


async def test_memory_is_given_back_once_a_crowd_has_gone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.go(74)
        await trio.sleep(10)
        assert requests.given == []
        requests.go(1)
        await trio.sleep(10)
        assert requests.given == [pytest.approx(10 + QUIET_S)]
        requests.go(25)
        await trio.sleep(1000)
        assert len(requests.given) == 1


@pytest.mark.parametrize("count", [1, CROWD_MIN - 1])
async def test_a_few_requests_are_no_crowd(
    count: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        for _ in range(10):
            requests.come(count)
            requests.go(count)
            await trio.sleep(100)
        assert requests.given == []


async def test_it_is_given_back_once_a_minute_at_most(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        for _ in range(100):
            requests.come(100)
            requests.go(100)
            await trio.sleep(2)
        pauses = [later - sooner for sooner, later in zip(requests.given, requests.given[1:], strict=False)]
        assert len(requests.given) == 4
        assert min(pauses) >= EVERY_S


async def test_much_is_given_back_only_while_nothing_is_in_flight(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.resident = BESIDE_REQUESTS_MAX + 1
        requests.go(99)
        await trio.sleep(100)
        assert requests.given == []
        requests.go(1)
        await trio.sleep(10)
        assert len(requests.given) == 1


async def test_the_next_crowd_takes_what_the_last_one_has_left(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.come(100)
        requests.go(100)
        requests.come(100)
        await trio.sleep(100)
        assert requests.given == []
        requests.go(100)
        await trio.sleep(100)
        assert len(requests.given) == 1


async def test_memory_is_given_back_after_uploads_that_left_much_behind(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.crowd.uploaded()
        await trio.sleep(10)
        assert requests.given == []
        requests.resident = GROWN_MIN
        requests.crowd.uploaded()
        await trio.sleep(10)
        assert requests.given == [pytest.approx(10 + QUIET_S)]


async def test_a_crowd_that_goes_while_uploads_are_judged_is_not_forgotten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        requests.crowd.uploaded()
        requests.come(100)
        requests.go(100)
        await trio.sleep(10)
        assert len(requests.given) == 1


async def test_in_a_program_of_somebody_elses_it_is_left_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(monkeypatch) as requests:
        monkeypatch.setattr(garbage, "owned", lambda: False)
        requests.come(100)
        requests.go(100)
        await trio.sleep(100)
        assert requests.given == []


def test_giving_back_is_harmless_wherever_it_runs() -> None:
    assert crowd.give_back() in (True, False)
