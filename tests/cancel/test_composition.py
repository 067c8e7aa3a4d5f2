"""Cancels of a composition at each checkpoint in turn: every call ends exactly once, and nothing is left."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.composition.composing import Handler, Scripted, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan_run import PlanRun, run
from umbel.composition.stream import StreamLine, capacity, run_stream
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.inbound import ClientGoneError
from umbel.core.model import Inputs
from umbel.net.timers import TimerQueue

PLAN = """
[[routes]]
path = "/r"
{combine}
[routes.calls.a]
upstream = "u"
path = "/a"
[routes.calls.list]
upstream = "u"
path = "/list"
[routes.calls.items]
each = "list"
upstream = "u"
path = "/i/{{item}}"
limit = 2
optional = true
timeout = "1s"
[routes.calls.last]
upstream = "u"
path = "/last/{{a}}"
optional = true
"""


def upstream_of(status: int) -> Handler:
    async def handler(request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"]
        await trio.sleep(0.01)
        if target == b"/list":
            return httpx.Response(200, json=["x", "y", "x", "z"])
        await trio.lowlevel.checkpoint()
        return httpx.Response(status if target == b"/i/y" else 200, json=1)

    return handler


@pytest.mark.parametrize("combine", ["", 'combine = "first"'])
@pytest.mark.parametrize("status", [200, 500])
async def test_a_plan_cancelled_at_any_checkpoint_ends_every_call_once(
    autojump_clock: trio.abc.Clock, combine: str, status: int
) -> None:
    compiled = plan(PLAN.format(combine=combine))
    upstream = Scripted(upstream_of(status))
    recorder = Records()
    finished: list[bool] = []

    async def operation() -> None:
        recorder.events.clear()
        finished.clear()
        await run(compiled, Inputs(), facts(), {"u": TransportCaller(upstream)}, recorder)
        finished.append(True)

    def check() -> None:
        assert upstream.in_flight == 0
        # A cancel before the very first step may come before the composition itself has begun.
        assert recorder.ended_calls == ["a", "items", "last", "list"] or not (recorder.events or finished)

    assert await for_every_checkpoint(operation, check) > 15


@pytest.mark.parametrize("combine", ["", 'combine = "first"'])
@pytest.mark.parametrize("waits", [0, 2])
async def test_a_plan_cancelled_at_any_step_of_any_task_ends_every_call_once(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery, combine: str, waits: int
) -> None:
    compiled = plan(PLAN.format(combine=combine))
    recorder, timers = Records(), TimerQueue()
    nursery.start_soon(timers.run)
    ended: list[bool] = []

    async def operation() -> None:
        recorder.events.clear()
        script = {"/": Reply(0.01, waits=waits), "/i/y": Reply(0.01, status=500), "/last": Reply(0.01, waits=1)}
        upstream = ScriptedCaller({**script, "/list": Reply(0.01, value=["x", "y", "x", "z"])})
        try:
            await run(compiled, Inputs(), facts(), {"u": upstream}, recorder, timers=timers)
        finally:
            ended.append(not upstream.under_way)

    def check() -> None:
        assert all(ended)
        assert not len(timers), "no timer is left behind"
        assert recorder.ended_calls == ["a", "items", "last", "list"] or not (recorder.events or ended)
        ended.clear()

    assert await for_every_checkpoint(operation, check, any_task=True) > 8


class _EndsAtStep(trio.abc.Instrument):
    """End a composition before the n-th step of any task."""

    def __init__(self, composition: PlanRun, step: int) -> None:
        self.composition = composition
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.composition.client_gone()


@pytest.mark.parametrize("combine", ["", 'combine = "first"'])
@pytest.mark.parametrize("waits", [0, 2])
async def test_a_plan_ended_before_any_step_of_any_task_ends_every_call_once(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery, combine: str, waits: int
) -> None:
    compiled = plan(PLAN.format(combine=combine))
    timers, step, ended = TimerQueue(), 0, False
    nursery.start_soon(timers.run)
    while not ended:
        recorder = Records()
        script = {"/": Reply(0.01, waits=waits), "/i/y": Reply(0.01, status=500), "/last": Reply(0.01, waits=1)}
        upstream = ScriptedCaller({**script, "/list": Reply(0.01, value=["x", "y", "x", "z"])})
        composition = PlanRun(compiled, Inputs(), facts(), {"u": upstream}, recorder, timers=timers)
        instrument = _EndsAtStep(composition, step)
        trio.lowlevel.add_instrument(instrument)
        if step == 0:
            composition.client_gone()
        gone = False
        try:
            await composition.run()
        except ClientGoneError:
            gone = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
        composition.client_gone()  # Does nothing after the end.
        ended, step = instrument.left > 0, step + 1
        failures = {each.failure.kind for each in composition.outcomes.values() if each.failure}
        assert gone or Kind.CLIENT_GONE not in failures
        assert not upstream.under_way and not len(timers)
        assert recorder.ended_calls == ["a", "items", "last", "list"]
    assert step > 6


async def test_a_stream_cancelled_at_any_checkpoint_closes_its_channel(autojump_clock: trio.abc.Clock) -> None:
    compiled = plan(PLAN.format(combine=""))
    upstream = Scripted(upstream_of(200))
    receivers: list[trio.MemoryReceiveChannel[StreamLine]] = []

    async def operation() -> None:
        send, receive = trio.open_memory_channel[StreamLine](capacity(compiled))
        receivers.append(receive)
        await run_stream(compiled, Inputs(), facts(), {"u": TransportCaller(upstream)}, Records(), send)

    async def check() -> None:
        assert upstream.in_flight == 0
        for receive in receivers:
            async for _ in receive:
                pass
            assert receive.statistics().open_send_channels == 0
        receivers.clear()

    assert await for_every_checkpoint(operation, check) > 15


async def test_a_gather_block_cancelled_at_any_checkpoint_leaves_no_call(autojump_clock: trio.abc.Clock) -> None:
    upstream = Scripted(upstream_of(200))
    recorder = Records()
    launched = 0

    async def operation() -> None:
        nonlocal launched
        launched = 0
        recorder.events.clear()
        compose = Compose({"u": upstream}, Inputs(), facts(), recorder)
        async with compose.gather() as g:
            first = g.get("u", "/a")
            launched = 1
            await first
            g.get("u", "/b", default=None)
            launched = 2

    def check() -> None:
        assert upstream.in_flight == 0
        assert len(recorder.calls) == launched

    assert await for_every_checkpoint(operation, check) > 5


async def test_a_failing_gather_block_that_is_cancelled_raises_only_its_failure(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Scripted(upstream_of(500))
    raised: list[BaseException] = []

    async def operation() -> None:
        compose = Compose({"u": upstream}, Inputs(), facts(), Records())
        try:
            async with compose.gather() as g:
                g.get("u", "/i/y")
                g.get("u", "/a")
        except CompositionFailedError as error:
            raised.append(error)

    def check() -> None:
        assert upstream.in_flight == 0

    await for_every_checkpoint(operation, check)
    assert raised, "uncut, it raises its failure; a cut after the decision may leave either"
