"""Clients that leave at random, by the thousand, while their upstream closes what it kept: each call ends exactly once.

Compositions alone, without a server before them, so that most of it is the flying. ``make soak`` runs it in full.
"""

from __future__ import annotations

import gc
import random
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.bothways import Counting, assert_nothing_left
from tests.support.composing import facts
from tests.support.rawserver import Peer, open_sockets, raw_server, response
from tests.support.records import Records
from tests.support.soak import SOAK
from umbel.composition.plan import compile_route
from umbel.composition.run import run
from umbel.config.schema import Config
from umbel.events import AttemptEnded
from umbel.model import Inputs
from umbel.upstream.stack import Stack, build

REQUESTS = 20_000 if SOAK else 600
AT_ONCE = 20
SLOTS = 60
CALLS = {
    "profile": {},
    "orders": {"optional": True, "timeout": "20ms"},
    "offers": {"path": "/offers/{profile.n}", "optional": True},
    "news": {"optional": True, "default": []},
    "basket": {"method": "PUT", "json": "{of: profile.n}", "optional": True},
}


class Upstream:
    """Answers at once or in two pieces, well or not, and closes what is kept as it likes."""

    def __init__(self) -> None:
        self.rng = random.Random("upstream")
        self.answered = 0

    async def handler(self, peer: Peer) -> None:
        rng = self.rng
        while (await peer.read_request())[0]:
            way = rng.random()
            if way < 0.3:
                await trio.sleep(rng.expovariate(1 / 0.002))
            if way < 0.01:
                peer.reset()
                return
            if way < 0.02:
                return
            answer = response(b'{"n":%d}' % rng.randrange(100))
            if way > 0.97:
                answer = response(b"no", status=b"503 Busy")
            cut = rng.randrange(len(answer)) if 0.02 < way < 0.2 else 0
            if cut:
                await peer.send(answer[:cut])
                await trio.lowlevel.checkpoint()
                if way < 0.04:
                    return
            await peer.send(answer[cut:])
            self.answered += 1
            if way > 0.9:
                # The next request may be under way already when the connection ends.
                await trio.sleep(rng.choice([0, 0.001]))
                return


@pytest.mark.timeout(300 if SOAK else 60)
async def test_clients_that_leave_while_connections_are_closed_leave_nothing() -> None:
    sockets, rng, does = open_sockets(), random.Random("clients"), Upstream()
    made = Config.model_validate(
        {
            "upstreams": {"u": {"urls": ["http://a"], "max_concurrency": SLOTS, "max_queue": 1000}},
            "routes": [
                {"path": "/r", "calls": {name: {"upstream": "u", "path": f"/{name}", **c} for name, c in CALLS.items()}}
            ],
        }
    )
    plan = compile_route(made, 0)
    left = answered = 0

    async def client(stack: Stack) -> None:
        nonlocal left, answered
        records, result = Records(), None
        with trio.CancelScope() as scope:
            if rng.random() < 0.4:
                scope.deadline = trio.current_time() + rng.expovariate(1 / 0.01)
            result = await run(plan, Inputs(), facts(1.0), {"u": stack}, records)
        left += result is None
        answered += result is not None and result.failure is None
        calls = [event.outcome for event in records.calls]
        # One that is cut before its first step has begun nothing.
        assert sorted(each.call for each in calls) == sorted(CALLS) or not (records.events or result)
        attempts = [event.attempt for event in records.events if isinstance(event, AttemptEnded)]
        assert sorted(attempts) == sorted(attempt for each in calls for attempt in each.attempts)

    async def clients(stack: Stack, number: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(some, stack, number // AT_ONCE)

    async def some(stack: Stack, number: int) -> None:
        for _ in range(number):
            await client(stack)

    async with AsyncExitStack() as entered:
        server = await entered.enter_async_context(raw_server(does.handler))
        upstream = made.upstreams["u"].model_copy(update={"urls": (f"http://127.0.0.1:{int(server)}",)})
        stack = await entered.enter_async_context(build("u", upstream))
        assert stack._express is not None
        counting = stack._express = Counting(stack._express)  # type: ignore[assignment]  # it does what Express does
        objects: list[int] = []
        for _ in range(5):
            await clients(stack, REQUESTS // 5)
            assert_nothing_left(stack)
            server.connections.clear()
            gc.collect()
            objects.append(len(gc.get_objects()))
        # Every slot is free: as many as there are find a place at once.
        before = stack.statistics().bulkhead
        with trio.fail_after(10):
            await clients(stack, AT_ONCE)
        await wait_all_tasks_blocked()
        assert stack.statistics().bulkhead.overflowed == before.overflowed == 0
        assert_nothing_left(stack)
        said = stack.statistics().pool
        assert said.idle <= SLOTS
        assert said.replaced > 0
        assert said.stale > 0
    assert counting.in_air > REQUESTS
    assert counting.carried > 0
    assert left > REQUESTS / 20
    assert answered > REQUESTS / 3
    assert does.answered > REQUESTS
    # What is idle comes and goes, but nothing piles up from round to round.
    assert min(objects[-2:]) < max(objects[:3]) + 1000, objects
    assert open_sockets() == sockets
