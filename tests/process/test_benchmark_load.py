"""The load of the benchmarks, against a server that ends connections."""

from __future__ import annotations

import json

import trio

from tests.support.process.processes import PROJECT, PYTHON
from tests.support.upstream.raw_server import Peer, raw_server, response

COMPLETE = b"umbel-completed: true"
LAST = 3
"""The requests of a connection."""


async def ends_connections(peer: Peer) -> None:
    for number in range(1, LAST + 1):
        if not (await peer.read_request())[0]:
            return
        await peer.send(response(b"{}", COMPLETE, *([b"connection: close"] if number == LAST else [])))


async def test_a_client_whose_connection_the_server_ends_connects_again() -> None:
    async with raw_server(ends_connections) as server:
        with trio.fail_after(20):
            done = await trio.run_process(
                [PYTHON, str(PROJECT / "benchmarks" / "path_load.py")],
                stdin=b"%d /x 2 0.2\n" % server,
                capture_stdout=True,
            )
        count, seconds, *_ = json.loads(done.stdout)
    assert count > 2 * LAST
    assert seconds >= 0.2
