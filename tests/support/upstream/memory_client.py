"""A client over streams in memory, whose upstream is a function of the connection, for the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.support.upstream.memory_dial import MemoryDial, ServerEnd
from tests.support.upstream.raw_server import Peer
from umbel.upstream import Client, Transport


@asynccontextmanager
async def memory_client(
    serve: Callable[[Peer], Awaitable[object]], *urls: str, delay: float = 0.0, **options: Any
) -> AsyncIterator[Client]:
    """``delay`` seconds of connecting; ``options`` of ``Transport``. On leaving the block nothing may be under way."""

    async def handler(end: ServerEnd) -> None:
        await serve(Peer(end, None, 0))

    async with trio.open_nursery() as nursery:
        dial = MemoryDial(nursery, handler, delay=delay)
        async with Transport(urls or ["http://a"], dial=dial, **options) as transport:
            yield transport.client
            assert_client_is_idle(transport.client)
        assert not dial.open


def assert_client_is_idle(client: Client) -> None:
    """Nothing of any call is under way, no timer is set, and no socket but the kept ones is watched."""
    said = client.statistics()
    assert (said.pool.active, said.pool.connecting) == (0, 0)
    assert (said.bulkhead.in_flight, said.bulkhead.waiting) == (0, 0)
    assert not any(replica.in_flight for replica in said.balance.replicas)
    assert (said.budget.active, said.budget.extra, said.hedge.pending) == (0, 0, 0)
    assert (said.coalesce.in_flight, said.coalesce.waiting) == (0, 0)
    assert len(client.timers) == 0
    reader = client.pool._dialer.reader
    assert reader is None or len(reader) <= said.pool.idle
