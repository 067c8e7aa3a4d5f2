"""A client over memory streams on the virtual clock, whose upstream is a function of the connection."""

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
    """Open a client. After the block no call may be in flight and no connection open.

    Args:
        serve: serves the upstream's end of each connection.
        urls: the URLs of the replicas.
        delay: the seconds that connecting takes.
        options: those of ``Transport``.
    """

    async def handler(end: ServerEnd) -> None:
        await serve(Peer(end, None, 0))

    async with trio.open_nursery() as nursery:
        dial = MemoryDial(nursery, handler, delay=delay)
        async with Transport(urls or ["http://a"], dial=dial, **options) as transport:
            yield transport.client
            assert_client_is_idle(transport.client)
        assert not dial.open


def assert_client_is_idle(client: Client) -> None:
    """Assert that no call is in flight, no timer is set, and only the sockets of idle connections are watched."""
    said = client.statistics()
    assert (said.pool.active, said.pool.connecting) == (0, 0)
    assert (said.bulkhead.in_flight, said.bulkhead.waiting) == (0, 0)
    assert not any(replica.in_flight for replica in said.balance.replicas)
    assert (said.budget.active, said.budget.extra, said.hedge.pending) == (0, 0, 0)
    assert (said.coalesce.in_flight, said.coalesce.waiting) == (0, 0)
    assert len(client.timers) == 0
    reader = client.pool._dialer.reader
    assert reader is None or len(reader) <= said.pool.idle
