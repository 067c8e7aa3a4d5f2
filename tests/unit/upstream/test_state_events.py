"""Records of state changes: one for each change of breaker, ejection and health."""

from __future__ import annotations

import random

import httpx
import pytest
import trio

from tests.support.logs.records import Records
from tests.support.upstream.memory_hosts import Hosts, answering, hang
from umbel.policy.replicas.ejection import EjectionRules
from umbel.upstream import BreakerRules, HealthRules, Transport

A, B = "http://a", "http://b"


def logged(records: Records) -> list[tuple[str, str, dict]]:
    return [(note.level, note.event, dict(note.fields)) for note in records.logged]


async def ask(transport: Transport, number: int) -> None:
    """Make requests, each for a second at most."""
    for _ in range(number):
        with trio.move_on_after(1):
            await transport.handle_async_request(httpx.Request("GET", "http://x"))


async def test_each_change_of_a_breaker_is_one_record_with_its_reason(nursery: trio.Nursery, autojump_clock) -> None:
    records, hosts = Records(), Hosts(nursery, a=answering(500))
    async with Transport([A], dial=hosts, breaker=BreakerRules(), name="users", recorder=records) as transport:
        await ask(transport, 19)
        assert logged(records) == []
        await ask(transport, 1)
        await trio.sleep(5)
        await ask(transport, 1)
        await trio.sleep(5)
        hosts.acts["a"] = hang
        await ask(transport, 3)  # A probe that is cut changes no state.
        hosts.acts["a"] = answering(200)
        await ask(transport, 30)

    def change(level: str, state: str, reason: str) -> tuple[str, str, dict]:
        return level, f"breaker.{state}", {"upstream": "users", "state": state, "reason": reason}

    assert logged(records) == [
        change("warning", "open", "20 of 20 attempts failed"),
        change("info", "half-open", "a call is admitted as a probe"),
        change("warning", "open", "the probe failed"),
        change("info", "half-open", "a call is admitted as a probe"),
        change("info", "closed", "the probe succeeded"),
    ]
    assert records.logged[0].message == "the breaker of users is open: 20 of 20 attempts failed"


async def test_a_replica_that_is_ejected_and_comes_back_is_logged_once_each(
    nursery: trio.Nursery, autojump_clock
) -> None:
    records, hosts = Records(), Hosts(nursery, a=answering(500), b=answering(500))
    rules = {"ejection": EjectionRules(), "balance": "round_robin", "name": "users", "recorder": records}
    async with Transport([A, B], dial=hosts, **rules) as transport:
        await ask(transport, 20)
        await trio.sleep(40)
        hosts.acts = {"a": answering(200), "b": answering(200)}
        await ask(transport, 20)
    assert logged(records) == [
        (
            "warning",
            "ejection.out",
            {
                "upstream": "users",
                "replica": A,
                "state": "out",
                "reason": "too many failures in a row: ejected for 30 s",
            },
        ),
        (
            "info",
            "ejection.back",
            {"upstream": "users", "replica": A, "state": "back", "reason": "the ejection is over"},
        ),
    ]


@pytest.mark.parametrize("status", [200, 500])
async def test_health_records_have_upstream_replica_and_reason(
    status: int, nursery: trio.Nursery, autojump_clock
) -> None:
    records, hosts = Records(), Hosts(nursery, a=answering(status))
    rules = {"health": HealthRules(every=1.0), "rng": random.Random(1), "name": "users", "recorder": records}
    async with Transport([A], dial=hosts, **rules):
        await trio.sleep(10)
        hosts.acts["a"] = answering(200)
        await trio.sleep(10)
    fields = {"upstream": "users", "replica": A}
    expected = [
        ("warning", "health.down", {**fields, "state": "down", "reason": "3 checks in a row failed"}),
        ("info", "health.up", {**fields, "state": "up", "reason": "2 checks in a row passed"}),
    ]
    assert logged(records) == (expected if status == 500 else [])
