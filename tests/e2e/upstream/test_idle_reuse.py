"""A server that closes idle connections early, over sockets: a POST takes no connection that may be closed."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from tests.support.upstream.calls import calling, url
from tests.support.upstream.raw_server import Peer, raw_server, response


async def closes_its_first_connection(peer: Peer) -> None:
    while (await peer.read_request())[0]:
        await peer.send(response(b"ok"))
        if peer.number == 0:
            await wait_all_tasks_blocked()  # The client has its response before the end.
            return


async def test_a_post_takes_no_connection_idle_as_long_as_one_that_was_closed() -> None:
    async with raw_server(closes_its_first_connection) as server, calling(url(server)) as caller:
        await caller.call()
        while server.open:
            await wait_all_tasks_blocked()
        await caller.call()  # The call finds the first connection closed shortly after it became idle.
        assert caller.client.statistics().pool.opened == 2
        await wait_all_tasks_blocked(0.01)
        await caller.call(method="POST", content=b"once")
        assert caller.client.statistics().pool.opened == 3
        await caller.call()
        assert caller.client.statistics().pool.opened == 3


async def resets_its_first_connection_inside_the_second_request(peer: Peer) -> None:
    while (await peer.read_request())[0]:
        await peer.send(response(b"ok"))
        if peer.number == 0:
            await peer.read_head()
            peer.reset()
            return


async def test_the_connection_that_replaces_one_under_a_large_put_is_reused() -> None:
    async with raw_server(resets_its_first_connection_inside_the_second_request) as server, calling(url(server)) as it:
        await it.call()
        await it.call(method="PUT", content=b"x" * 5_000_000)
        await it.call()
        pool = it.client.statistics().pool
        assert (pool.replaced, pool.opened, pool.reused) == (1, 2, 2)
