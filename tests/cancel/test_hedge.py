"""The hedge layer, cancelled at every checkpoint in turn: no attempt, no place and no connection stays."""

from __future__ import annotations

import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.memory_dial import MemoryDial, ServerEnd
from tests.support.scripts import Script, Step, call_request
from umbel.policy.budget import Budget
from umbel.upstream.body import Body
from umbel.upstream.ending import LOST
from umbel.upstream.errors import ConnectFailed
from umbel.upstream.hedge import Hedge
from umbel.upstream.pool import Pool
from umbel.upstream.retry import Retry
from umbel.upstream.state import STATE

HANGS = Step(1000.0, 200)
RACES = {
    "the hedge wins": [HANGS, Step(0.1, 200)],
    "the first wins": [Step(0.4, 200), HANGS],
    "the third wins": [HANGS, HANGS, Step(0.1, 200)],
    "an early failure": [Step(0.1, ConnectFailed("no")), Step(0.1, 200)],
    "open responses": [Step(0.1, 503, open=True), HANGS, Step(0.1, 200, open=True)],
}


@pytest.mark.parametrize("steps", RACES.values(), ids=RACES.keys())
@pytest.mark.parametrize("whole_life", [False, True], ids=["the call", "the layer too"])
async def test_a_hedged_call_leaves_nothing(steps: list[Step], whole_life: bool, autojump_clock) -> None:
    budget = Budget()
    script = Script(steps)
    request = call_request(deadline=1e6)

    async def call(layer: Hedge) -> None:
        script.made.clear()
        script.streams.clear()
        assert (await layer.handle_async_request(request)).status_code == 200

    async def call_alone() -> None:
        async with Hedge(script, after=0.25, max=2, budget=budget) as layer:
            await call(layer)

    def check() -> None:
        assert script.in_flight == 0
        assert all(stream.closed for stream in script.streams)
        assert (budget.statistics().active, budget.statistics().extra) == (0, 0)
        assert STATE not in request.extensions
        # None is trio's: the cancel came in the step in which the script's own sleep ended, and that has no reason.
        assert {made.reason for made in script.made if made.cancelled} <= {"client-gone", LOST, None}

    if whole_life:
        assert await for_every_checkpoint(call_alone, check) > 5
        return
    async with Hedge(script, after=0.25, max=2, budget=budget) as layer:

        def check_layer() -> None:
            check()
            assert layer.statistics().pending == 0
            assert len(trio.lowlevel.current_task().child_nurseries[-1].child_tasks) == 1, "the alarm"

        assert await for_every_checkpoint(lambda: call(layer), check_layer) >= 2


async def test_retried_and_hedged_over_a_pool_it_leaves_no_connection(nursery: trio.Nursery, autojump_clock) -> None:
    served = 0

    async def serve(end: ServerEnd) -> None:
        """Of three connections the first hangs, the second is not able, the third answers in pieces."""
        nonlocal served
        served += 1
        turn = served % 3
        while await end.receive_some():
            if turn == 1:
                await trio.sleep(1000)
            status = b"503 Not Able" if turn == 2 else b"200 OK"
            for piece in (b"HTTP/1.1 ", status, b"\r\nContent-Length: 2\r\n\r\n", b"o", b"k"):
                await trio.lowlevel.checkpoint()
                await end.send_all(piece)

    budget = Budget()
    dial = MemoryDial(nursery, serve, delay=0.01)
    pool = Pool(dial=dial)
    async with Retry(Hedge(Body(pool), after=0.25, budget=budget), attempts=4, budget=budget) as layer:

        async def call() -> None:
            response = await layer.handle_async_request(call_request(deadline=1e6))
            assert response.status_code in (200, 503)

        async def check() -> None:
            statistics = pool.statistics()
            assert (statistics.active, statistics.connecting) == (0, 0)
            assert dial.open == statistics.idle
            assert (budget.statistics().active, budget.statistics().extra) == (0, 0)
            await pool.aclose()

        assert await for_every_checkpoint(call, check) > 10
    assert dial.open == 0
