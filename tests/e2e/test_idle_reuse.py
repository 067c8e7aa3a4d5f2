"""A server that closes idle connections early, over real sockets: a POST does not go where it may cross the close."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from tests.support.rawserver import Peer, raw_server, response
from tests.support.upstreams import calling, url


async def closes_its_first_connection(peer: Peer) -> None:
    while (await peer.read_request())[0]:
        await peer.send(response(b"ok"))
        if peer.number == 0:
            return


async def test_a_post_takes_no_connection_as_old_as_one_that_its_server_has_closed() -> None:
    async with raw_server(closes_its_first_connection) as server, calling(url(server)) as caller:
        await caller.call()
        while server.open:
            await wait_all_tasks_blocked()
        await caller.call()  # It finds the first connection closed, nearly as soon as it was idle.
        assert caller.stack.statistics().pool.opened == 2
        await wait_all_tasks_blocked(0.01)
        await caller.call(method="POST", content=b"once")
        assert caller.stack.statistics().pool.opened == 3
        await caller.call()
        assert caller.stack.statistics().pool.opened == 3
