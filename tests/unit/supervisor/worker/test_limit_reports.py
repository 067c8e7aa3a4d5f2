"""Reports of limits: the clock of their times, and a clock that is set."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from umbel.config.schema.sections import Limit
from umbel.limits.limiter import Limiter, name_of_identity
from umbel.supervisor.control import messages
from umbel.supervisor.worker.limit_reports import LimitReports


def limiter(**keys: Any) -> Limiter:
    return Limiter("l", Limit.model_validate({"key": "client.ip", "rate": "1/s", "burst": 2, **keys}))


def ask(limit: Limiter) -> bool:
    now = trio.current_time()
    key, decision = limit.decide({"client": {"ip": "a"}}, now)
    if decision.admitted:
        limit.spend(key, decision, now)
    return decision.admitted


def recording(sent: list[messages.LimitSpent]) -> Any:
    """A channel that takes everything."""
    return SimpleNamespace(send=lambda message: sent.append(message) or True, has_room=True)


@asynccontextmanager
async def reporting(channel: Any, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[LimitReports]:
    reports = LimitReports(channel, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(reports.run)
        yield reports
        nursery.cancel_scope.cancel()


async def test_times_of_messages_are_those_of_the_clock_that_all_processes_share() -> None:
    sent: list[messages.LimitSpent] = []
    channel = recording(sent)
    limit, begin = limiter(), trio.current_time()
    async with reporting(channel, lambda: trio.current_time() - begin + 5000.0) as reports:
        with reports.share([limit]):
            assert ask(limit)
            tats = (("ta", 5001.5), ("tb", 5009.0))
            reports.on_tats(messages.LimitTats(limit=limit.identity, counted=0, tats=tats))
    assert sent[0].spent == (("ta", pytest.approx(1.0), pytest.approx(5001.0)),)
    assert [limit.wait(key, 1.0, 0.0, begin) for key in ("a", "b")] == pytest.approx([1.5, 8.0])


async def test_a_clock_of_the_day_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_clock() -> float:
        raise AssertionError("a limit must not read the time of day")

    for name in ("time", "time_ns", "localtime", "gmtime"):
        monkeypatch.setattr(time, name, set_clock)
    limit = limiter()
    channel: Any = SimpleNamespace(send=lambda message: True, has_room=True)
    async with reporting(channel) as reports:
        with reports.share([limit]):
            assert [ask(limit) for _ in range(3)] == [True, True, False]


async def test_what_was_spent_is_reported_when_the_gateway_closes() -> None:
    sent: list[messages.LimitSpent] = []
    limit = limiter()
    async with reporting(recording(sent)) as reports:
        with reports.share([limit]):
            ask(limit)
            assert (sent, reports.identities) == ([], (limit.identity,))
        assert [message.limit for message in sent] == [limit.identity]
        assert reports.identities == ()


async def test_gateways_of_one_process_with_the_same_limit_count_apart() -> None:
    sent: list[messages.LimitSpent] = []
    one, other = limiter(), limiter()
    async with reporting(recording(sent)) as reports:
        with reports.share([one]):
            with reports.share([other]):
                assert [ask(one), ask(other), ask(other), ask(other)] == [True, True, True, False]
                tats = (("ta", trio.current_time() + 90.0),)
                reports.on_tats(messages.LimitTats(limit=f"{other.identity}#2", counted=0, tats=tats))
            assert ask(one)
    assert [(message.limit, message.number) for message in sent] == [(f"{other.identity}#2", 1), (one.identity, 1)]


async def test_a_full_channel_gets_no_reports_and_all_of_them_once_it_has_room(autojump_clock: MockClock) -> None:
    sent: list[messages.LimitSpent] = []
    limit, channel = limiter(sync="10s"), recording(sent)
    channel.has_room = False
    async with reporting(channel) as reports:
        with reports.share([limit]):
            ask(limit)
            await trio.sleep(30.0)
            assert sent == []
            channel.has_room = True
            await trio.sleep(0.06)  # No further half of ``sync`` passes.
            assert len(sent) == 1


def test_the_identity_of_a_limit_is_another_if_what_it_decides_changes() -> None:
    same = [limiter(), limiter(rate="60/m"), limiter(sync="1s"), limiter(max_keys=7)]
    assert len({each.identity for each in same}) == 1
    changed = [limiter(rate="2/s"), limiter(burst=3), limiter(key="'all'"), limiter(cost="`2`")]
    assert len({each.identity for each in (same[0], *changed)}) == 5
    assert {name_of_identity(each.identity) for each in changed} == {"l"}
    assert name_of_identity(f"{same[0].identity}#2") == "l"
