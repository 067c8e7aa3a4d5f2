"""Reports of limits: the clock of their times, and a clock that is set."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from umbel.config.schema.sections import Limit
from umbel.limits.limiter import Limiter
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


async def test_times_of_messages_are_those_of_the_clock_that_all_processes_share() -> None:
    sent: list[messages.LimitSpent] = []
    channel: Any = SimpleNamespace(send=lambda message: sent.append(message) or True)
    limit, begin = limiter(), trio.current_time()
    reports = LimitReports([limit], channel, lambda: trio.current_time() - begin + 5000.0)
    assert ask(limit)
    reports.send_rest()
    assert sent[0].spent == (("ta", pytest.approx(1.0), pytest.approx(5001.0)),)
    reports.on_tats(messages.LimitTats(limit="l", counted=1, tats=(("ta", 5001.5), ("tb", 5009.0))))
    assert [limit.wait(key, 1.0, 0.0, begin) for key in ("a", "b")] == pytest.approx([0.5, 8.0])


async def test_a_clock_of_the_day_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_clock() -> float:
        raise AssertionError("a limit must not read the time of day")

    for name in ("time", "time_ns", "localtime", "gmtime"):
        monkeypatch.setattr(time, name, set_clock)
    limit = limiter()
    channel: Any = SimpleNamespace(send=lambda message: True)
    LimitReports([limit], channel).send_rest()
    assert [ask(limit) for _ in range(3)] == [True, True, False]
