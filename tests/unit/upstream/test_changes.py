"""Whatever opens, closes, goes out or comes back leaves one record, and nothing else does."""

from __future__ import annotations

import random

import pytest
import trio

from tests.support.layers import Bottom, answering, asked, hang
from tests.support.records import Records
from umbel.upstream.balance import Balance
from umbel.upstream.breaker import Breaker
from umbel.upstream.health import Health

A, B = "http://a", "http://b"


def told(records: Records) -> list[tuple[str, str, dict]]:
    return [(note.level, note.event, dict(note.fields)) for note in records.notes]


async def test_each_change_of_a_breaker_is_one_record_with_its_reason(autojump_clock) -> None:
    records = Records()
    bottom = Bottom(answering(500))
    breaker = Breaker(bottom, name="users", recorder=records)
    for _ in range(19):
        await breaker.handle_async_request(asked())
    assert told(records) == []
    await breaker.handle_async_request(asked())
    await trio.sleep(5)
    await breaker.handle_async_request(asked())
    await trio.sleep(5)
    bottom.act = hang
    for _ in range(3):  # A probe that is cut gives its place back, which changes nothing.
        with trio.move_on_after(1):
            await breaker.handle_async_request(asked())
    bottom.act = answering(200)
    for _ in range(30):
        await breaker.handle_async_request(asked())

    def change(level: str, state: str, reason: str) -> tuple[str, str, dict]:
        return level, f"breaker.{state}", {"upstream": "users", "state": state, "reason": reason}

    assert told(records) == [
        change("warning", "open", "20 of 20 attempts failed"),
        change("info", "half-open", "a call is let through as a probe"),
        change("warning", "open", "the probe failed"),
        change("info", "half-open", "a call is let through as a probe"),
        change("info", "closed", "the probe was answered"),
    ]
    assert records.notes[0].message == "the breaker of users is open: 20 of 20 attempts failed"


async def test_alone_a_breaker_names_the_origin() -> None:
    records = Records()
    breaker = Breaker(Bottom(answering(500)), min_requests=1, recorder=records)
    await breaker.handle_async_request(asked(url="http://a:81"))
    assert records.notes[0].fields["upstream"] == "http://a:81"


async def test_a_replica_that_is_ejected_and_comes_back_is_told_of_once_each(autojump_clock) -> None:
    records = Records()
    bottom = Bottom(answering(500))
    balance = Balance(bottom, [A, B], policy="round_robin", name="users", recorder=records)
    for _ in range(20):
        await balance.handle_async_request(asked())
    await trio.sleep(40)
    bottom.act = answering(200)
    for _ in range(20):
        await balance.handle_async_request(asked())
    assert told(records) == [
        (
            "warning",
            "ejection.out",
            {"upstream": "users", "replica": A, "state": "out", "reason": "too many failures in a row: out for 30 s"},
        ),
        ("info", "ejection.back", {"upstream": "users", "replica": A, "state": "back", "reason": "its time is over"}),
    ]


@pytest.mark.parametrize("status", [200, 500])
async def test_checks_tell_of_upstream_replica_and_reason(status: int, autojump_clock) -> None:
    records = Records()
    bottom = Bottom(answering(status))
    async with Health(bottom, [A], every=1.0, rng=random.Random(1), name="users", recorder=records):
        await trio.sleep(10)
        bottom.act = answering(200)
        await trio.sleep(10)
    fields = {"upstream": "users", "replica": A}
    expected = [
        ("warning", "health.down", {**fields, "state": "down", "reason": "3 checks in a row failed"}),
        ("info", "health.up", {**fields, "state": "up", "reason": "2 checks in a row passed"}),
    ]
    assert told(records) == (expected if status == 500 else [])
