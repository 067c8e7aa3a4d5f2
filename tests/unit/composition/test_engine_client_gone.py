"""A client that leaves while a composition waits: ``on_wait``, and the outcomes of the calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import calls, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.answer.result import Result
from umbel.composition.engine import INLINE_MAX
from umbel.composition.plan_run import PlanRun
from umbel.core.failure_kinds import Kind
from umbel.core.inbound import ClientGoneError
from umbel.core.model import Inputs

MockClock = trio.testing.MockClock
FIRST = '[[routes]]\npath = "/r"\ncombine = "first"\n'


class Running:
    """A composition that calls ``on_wait`` at its first wait."""

    def __init__(self, text: str, replies: dict[str, Reply]) -> None:
        self.upstream = ScriptedCaller({"/": Reply(), **replies})
        self.records = Records()
        self.leave: list[Callable[[], object]] = []
        callers, on_wait = {"u": self.upstream}, self.leave.append
        self.run = PlanRun(plan(text), Inputs(), facts(), callers, self.records, on_wait=on_wait)
        self.result: Result | None = None
        self.gone = False

    async def to_its_end(self) -> None:
        try:
            self.result = await self.run.run()
        except ClientGoneError:
            self.gone = True

    @property
    def kinds(self) -> dict[str, Kind | None]:
        outcomes = [event.outcome for event in self.records.calls]
        return {each.call: each.failure.kind if each.failure else None for each in outcomes}


async def test_on_wait_is_called_once_and_only_if_the_composition_waits(autojump_clock: MockClock) -> None:
    composition = Running(calls("ab"), {"/": Reply(0)})
    await composition.to_its_end()
    assert composition.result is not None
    assert composition.leave == []
    composition = Running(calls("abc"), {"/a": Reply(1), "/b": Reply(2), "/c": Reply(3, waits=2)})
    await composition.to_its_end()
    assert composition.result is not None
    (leave,) = composition.leave
    leave()  # The composition is over, so this has no effect.
    assert not composition.gone


@pytest.mark.parametrize("b", [Reply(), Reply(waits=1)], ids=["no task", "a task"])
async def test_a_client_that_leaves_cuts_every_call_at_once(b: Reply, autojump_clock: MockClock) -> None:
    composition = Running(calls("abc", c='path = "/c/{a}"').replace('path = "/c"\n', ""), {"/a": Reply(), "/b": b})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(composition.to_its_end)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        composition.leave[0]()
        composition.leave[0]()
    assert trio.current_time() == began
    assert composition.gone
    assert composition.kinds == dict.fromkeys("abc", Kind.CLIENT_GONE)
    assert [call.cancelled for call in composition.upstream.started] == ["client-gone"] * 2
    assert len(composition.upstream.calls) == 2


async def test_a_client_that_left_before_the_first_wait_ends_the_composition(
    autojump_clock: MockClock,
) -> None:
    composition = Running(calls("a"), {})
    composition.run.on_wait = lambda leave: leave()
    await composition.to_its_end()
    assert composition.gone
    assert composition.kinds == {"a": Kind.CLIENT_GONE}


async def test_outcomes_and_a_decision_before_the_client_leaves_are_kept(autojump_clock: MockClock) -> None:
    large = b'"' + b"x" * INLINE_MAX + b'"'
    composition = Running(calls("abc"), {"/b": Reply(content=large)})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(composition.to_its_end)
        await wait_all_tasks_blocked()
        composition.upstream.of("/a").end()
        composition.upstream.of("/b").end()  # Its large body is not decoded before the client leaves.
        composition.leave[0]()
    assert composition.gone
    assert composition.kinds == {"a": None, "b": Kind.CLIENT_GONE, "c": Kind.CLIENT_GONE}
    composition = Running(FIRST + calls("ab"), {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(composition.to_its_end)
        await wait_all_tasks_blocked()
        composition.upstream.of("/a").end()
        composition.leave[0]()
    assert composition.result is not None
    assert composition.kinds == {"a": None, "b": Kind.CANCELLED}
