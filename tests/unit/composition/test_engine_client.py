"""Compositions over a real client with in-memory streams: timeouts, attempts and places of calls and items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.support.composition.composing import PlanRun, calls, compose, facts, plan
from tests.support.logs.records import Records
from tests.support.upstream.memory_client import memory_client
from tests.support.upstream.raw_server import Peer, response
from umbel.composition.plan_run import run
from umbel.core.events import AttemptEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs
from umbel.policy.retry import RetryRules

ONE = response(b"1")


async def compose_over(seconds: Mapping[bytes, float], text: str, deadline: float = 5.0, **policies: Any) -> PlanRun:
    """Run a composition whose targets take ``seconds``. The first request for a target under /busy gets 503."""
    asked: set[bytes] = set()

    async def serve(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            target = head.split(b" ")[1]
            await trio.sleep(seconds.get(target, 0))
            busy = target.startswith(b"/busy") and target not in asked
            asked.add(target)
            await peer.send(response(b"", status=b"503 X") if busy else ONE)

    async with memory_client(serve, **policies) as client:
        return await compose(text, client, deadline=deadline)


async def test_each_call_ends_at_its_own_timeout(autojump_clock: trio.abc.Clock) -> None:
    limited = 'timeout = "{}"\noptional = true'
    text = calls("abcd", a=limited.format("3s"), b=limited.format("1500ms"), c=limited.format("2500ms"))
    ran = await compose_over({b"/a": 9, b"/b": 9, b"/c": 2, b"/d": 1}, text)
    assert ran.kinds == {"a": Kind.TIMEOUT, "b": Kind.TIMEOUT, "c": 1, "d": 1}
    assert [outcome.ended_at for outcome in ran.result.outcomes] == [3.0, 1.5, 2.0, 1.0]


async def test_the_timeout_of_an_item_counts_from_the_start_of_the_item(autojump_clock: trio.abc.Clock) -> None:
    each = 'each = "`[0,1,2]`"\nlimit = 1\ntimeout = "1s"\noptional = true'
    text = calls("ab", b=each).replace('"/b"', '"/b/{item}"')
    ran = await compose_over({b"/b/0": 0.9, b"/b/1": 9, b"/b/2": 0.9}, text)
    assert ran.outcomes["b"].value == [1, None, 1]
    assert ran.outcomes["b"].ended_at == 0.9 + 1 + 0.9
    assert [failed.failure.kind for failed in ran.outcomes["b"].failed_items] == [Kind.TIMEOUT]


async def test_an_outcome_holds_the_attempts_of_the_call_and_of_its_items(autojump_clock: trio.abc.Clock) -> None:
    each = 'each = "`[0,1]`"\nlimit = 1'
    text = calls("ab", b=each).replace('"/a"', '"/busy/a"').replace('"/b"', '"/busy/{item}"')
    ran = await compose_over({}, text, retry=RetryRules(attempts=2))
    made = {name: [(each.number, each.status, each.cause) for each in ran.outcomes[name].attempts] for name in "ab"}
    assert made["a"] == [(1, 503, "first"), (2, 200, "retry")]
    assert made["b"] == [(1, 503, "first"), (2, 200, "retry"), (3, 503, "first"), (4, 200, "retry")]


@pytest.mark.parametrize("connected", [False, True], ids=["while it connects", "while it waits for a response"])
async def test_the_freed_place_of_a_cut_call_starts_no_queued_call_of_its_composition(
    connected: bool, autojump_clock: trio.abc.Clock
) -> None:
    records = Records()

    async def serve(peer: Peer) -> None:
        await peer.closed()

    for _ in range(10):  # The order in which trio cancels its tasks is random.
        records.events.clear()
        async with memory_client(serve, delay=0 if connected else 9, max_concurrency=1) as client:
            with trio.move_on_after(1):
                await run(plan(calls("abc")), Inputs(), facts(), {"u": client}, records)
        assert records.ended_calls == ["a", "b", "c"]
        assert [event.call for event in records.events if isinstance(event, AttemptEnded)] == ["a"]


async def test_the_deadline_cuts_calls_in_flight_and_calls_in_the_queue(autojump_clock: trio.abc.Clock) -> None:
    text = calls("abc", b="optional = true", c="optional = true")
    ran = await compose_over({b"/b": 9}, text, deadline=1.0, max_concurrency=1)
    assert ran.kinds == {"a": 1, "b": Kind.TIMEOUT, "c": Kind.TIMEOUT}
    assert [len(outcome.attempts) for outcome in ran.result.outcomes] == [1, 1, 0]
