"""Calls in code that start and end in a random order at random times: each has one outcome and one record."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.composition.test_composition import DEADLINE
from tests.property.composition.test_engine_events import Event, replies
from tests.support.composition.composing import facts
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.gather import CallHandle, Compose, CompositionFailedError, Gather
from umbel.core.failure_kinds import CUT
from umbel.core.model import Inputs

WHATS = ["launch", "launch", "optional", "end", "end", "wait", "turn", "turn", "await", "time", "deadline", "cancel"]
events = st.lists(st.tuples(st.sampled_from(WHATS), st.integers(0, 7)), max_size=25)


class Block:
    """A gather block whose body performs the drawn events. After a cancel the body goes on, as a ``finally`` may."""

    def __init__(self, upstream: ScriptedCaller, client: trio.CancelScope, clock: trio.testing.MockClock) -> None:
        self.upstream, self.client, self.clock = upstream, client, clock
        self.handles: list[CallHandle] = []
        self.optional: set[str] = set()
        self.cancelled: trio.Cancelled | None = None

    async def body(self, g: Gather, happening: list[Event]) -> None:
        for what, number in happening:
            under_way = self.upstream.under_way
            call = under_way[number % len(under_way)] if under_way else None
            match what:
                case "launch" | "optional":
                    self.handles.append(g.get("u", f"/{len(self.handles)}", optional=what == "optional"))
                    self.optional |= {self.handles[-1].name} if what == "optional" else set()
                case "end" if call is not None:
                    call.end()
                case "wait" if call is not None:
                    call.resume()
                case "time":
                    self.clock.jump(0.1)
                case "deadline":
                    self.clock.jump(2 * DEADLINE)
                case "cancel":
                    self.client.cancel(reason="client-gone")
                case "turn" | "await" if self.cancelled is None:
                    await self._wait(what, number)
        if self.cancelled is not None:
            raise self.cancelled

    async def _wait(self, what: str, number: int) -> None:
        try:
            if what == "turn":
                await trio.testing.wait_all_tasks_blocked()
            elif self.handles:
                with trio.move_on_after(0.05):
                    self.clock.jump(0.1)
                    await self.handles[number % len(self.handles)]
        except trio.Cancelled as error:
            self.cancelled = error


async def run_block(drawn: list[Reply], happening: list[Event], clock: trio.testing.MockClock) -> None:
    upstream, records = ScriptedCaller(lambda target: drawn[int(target[1:]) % len(drawn)]), Records()
    compose = Compose({"u": upstream}, Inputs(), facts(DEADLINE), records)
    failed: CompositionFailedError | None = None
    with trio.CancelScope() as client:
        block = Block(upstream, client, clock)
        try:
            async with compose.gather() as g:
                await block.body(g, happening)
                clock.autojump_threshold = 0  # The remaining calls end at the deadline.
        except CompositionFailedError as error:
            failed = error
    assert not upstream.under_way
    assert records.ended_calls == sorted(handle.name for handle in block.handles)
    required = [
        handle.outcome.failure
        for handle in block.handles
        if handle.outcome.failure is not None and handle.name not in block.optional
    ]
    if failed is not None:
        assert failed.result.failure is not None
        assert failed.result.failure in required or failed.result.failure.status == 504
        assert [outcome.call for outcome in failed.result.outcomes] == [handle.name for handle in block.handles]
    elif not client.cancelled_caught:
        assert all(failure.kind in CUT for failure in required)


@settings(max_examples=300, deadline=None)
@given(drawn=replies, happening=events)
def test_any_order_of_launches_and_ends_gives_each_call_one_outcome(drawn: list[Reply], happening: list[Event]) -> None:
    clock = trio.testing.MockClock()
    trio.run(run_block, drawn, happening, clock, clock=clock)
