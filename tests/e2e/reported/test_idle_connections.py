"""A request that must not be retried does not fail when its upstream closes an idle connection."""

from __future__ import annotations

import sys
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.logs.records import Records
from tests.support.upstream.calls import calling, request_facts, url
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner

LARGE = b"x" * 100_000
"""A body so large that sending it needs a task."""


@pytest.mark.parametrize("mode", ["whole", "stream"])
async def test_a_post_whose_idle_connection_closes_before_its_task_runs_uses_a_new_one(mode: str) -> None:
    close = trio.Event()

    async def handler(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(response(b"%d" % peer.number))
            if peer.number == 0:
                await close.wait()
                return

    async with raw_server(handler) as server, calling(url(server)) as upstream:
        await upstream.call()
        owner = SingleCallOwner()
        context = CallContext(owner, "call", "upstream", request_facts(), recorder=Records(), takes_attempts=True)
        call = upstream.client.new_call(PreparedRequest("POST", b"/", (), LARGE), context, mode)
        call.start(trio.current_time())
        assert upstream.client.statistics().pool.reused == 1
        close.set()
        while server.open:
            await wait_all_tasks_blocked()
        await call.finish()
        while owner.ended is None:
            await wait_all_tasks_blocked()
        assert (call.error, call.status) == (None, 200)
        call.cancel("the test is over")
        assert [attempt.reused for attempt in context.attempts] == [False]
        pool = upstream.client.statistics().pool
        assert (pool.opened, pool.reused, pool.stale, pool.replaced) == (2, 0, 1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell when data came")
async def test_idle_time_counts_from_the_arrival_of_a_response_that_is_read_late() -> None:
    async def handler(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(response(b"ok"))
            if peer.number == 0:
                time.sleep(0.6)  # noqa: ASYNC251  # blocks the event loop, so that the response is read late

    async with raw_server(handler) as server, calling(url(server)) as upstream:
        await upstream.call()
        await upstream.call(method="POST", content=b"once")
        assert upstream.client.statistics().pool.opened == 2, (
            "without experience a connection is reused within half a second of idleness"
        )
        await upstream.call(method="POST", content=b"once")
        assert upstream.client.statistics().pool.opened == 2
