"""A server that is some way off and closes idle connections, exactly so whatever else the machine does.

A relay before a server delays, and delays more when the test's own process is busy: then a request comes too late that
a real network would have brought in time. Here the time of each arrival is the kernel's, and the server decides by it
what it would have done: to answer, or to reset a connection that it had closed before the request came.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.support.upstream.raw_server import Peer, RawServer, raw_server, response

BACKLOG = 4096
_LAST_DATA_RECEIVED = slice(52, 56)
"""In Linux's ``struct tcp_info``."""


def _arrived_at(peer: Peer) -> float:
    """When the last data of a connection came to this machine."""
    info = peer.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.stop)
    return trio.current_time() - int.from_bytes(info[_LAST_DATA_RECEIVED], "little") / 1000


async def _readable(peer: Peer, until: float) -> bool:
    """Wait for data or an end; whether there is any, in time or just noticed late."""
    with trio.move_on_at(until):
        await trio.lowlevel.wait_readable(peer.socket)
        return True
    try:
        # Read by its number: trio's own socket would wait.
        with socket.fromfd(peer.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.setblocking(False)
            return bool(same.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@asynccontextmanager
async def far_server(idle: float, one_way: float, *, hint: bytes = b"") -> AsyncIterator[RawServer]:
    """Answer each request; ``one_way`` seconds away in each direction.

    Args:
        idle: seconds after a response at which the server closes the connection.
        hint: a Keep-Alive field.
    """
    answer = response(b"{}", *([hint] if hint else []))

    async def handler(peer: Peer) -> None:
        closes_at = math.inf
        while await _readable(peer, closes_at + one_way):
            arrives_at = _arrived_at(peer) + one_way
            if not (await peer.read_request())[0]:
                return
            await trio.sleep_until(arrives_at + one_way)
            if arrives_at >= closes_at:
                peer.reset()
                return
            await peer.send(answer)
            closes_at = arrives_at + idle

    async with raw_server(handler) as server:
        server.listener.listen(BACKLOG)
        yield server
