"""The churn that wedges httpx's own pool (encode/httpcore#1093): calls cancelled at random, in the queue and in flight.

There a request cancelled while it waits in a full pool keeps its slot for ever, and soon every request is a
PoolTimeout. Here every slot is free at the end.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import httpx
import pytest
import trio

from tests.support.soak import SOAK
from tests.support.upstream.calls import Caller, url
from tests.support.upstream.raw_server import Peer, open_sockets, raw_server, response
from umbel.upstream import Pool, Transport

CANCELS = 20_000 if SOAK else 2_000
AT_ONCE = 60
SLOTS = 10


async def _answer_at_leisure(peer: Peer) -> None:
    rng = random.Random(peer.number)
    while (await peer.read_request())[0]:
        await trio.sleep(rng.uniform(0, 0.004))
        await peer.send(response(b"x" * rng.choice([10, 5_000])))


@pytest.mark.timeout(300 if SOAK else 60)
@pytest.mark.parametrize("queue", ["the pool's own", "an upstream's"])
async def test_after_thousands_of_cancels_every_place_is_free(queue: str) -> None:
    sockets = open_sockets()
    rng = random.Random(20_000)
    cancelled = answered = 0
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(raw_server(_answer_at_leisure))
        transport: Pool | Transport = (
            Pool(max_connections=SLOTS, max_waiting=AT_ONCE)
            if queue == "the pool's own"
            else Transport([url(server)], max_concurrency=SLOTS, max_queue=AT_ONCE)
        )
        await stack.enter_async_context(transport)

        async def ask() -> None:
            response = await transport.handle_async_request(httpx.Request("GET", url(server)))
            try:
                await response.aread()
            finally:
                await response.aclose()

        async def caller(calls: int) -> None:
            nonlocal cancelled, answered
            for _ in range(calls):
                with trio.move_on_after(rng.choice([rng.uniform(0, 0.02), rng.uniform(0.02, 0.2)])):
                    await ask()
                    answered += 1
                    continue
                cancelled += 1

        while cancelled < CANCELS:
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(caller, 20)

        if isinstance(transport, Transport):
            Caller(transport.client).assert_nothing_left()
        else:
            said = transport.statistics()
            assert (said.active, said.connecting) == (0, 0)
            assert said.slots is not None
            assert (said.slots.in_use, said.slots.waiting) == (0, 0)
        assert answered > CANCELS / 50, "some calls get through, so there was a queue to leave and one to win"
        # The pool still serves as many requests at once as before, none of them queued.
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(SLOTS):
                    nursery.start_soon(ask)
    assert open_sockets() == sockets
