"""A server with a network delay that closes idle connections at an exact time, on a busy machine too.

A relay with a delay (``delay_relay``) delays more when the test's own process is busy, so that a request may arrive too
late that a real network would deliver in time. This server takes the arrival time of each request from the kernel. From
it the server decides whether it answers, or resets the connection because it had closed it before the request arrived.
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
"""The position of ``tcpi_last_data_recv`` (milliseconds ago) in Linux's ``struct tcp_info``."""


def _arrived_at(peer: Peer) -> float:
    """Return the time at which the kernel received the last data of a connection."""
    info = peer.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.stop)
    return trio.current_time() - int.from_bytes(info[_LAST_DATA_RECEIVED], "little") / 1000


async def _readable(peer: Peer, until: float) -> bool:
    """Wait for data or the end of the stream; return whether there is any, also if this task notices it too late."""
    with trio.move_on_at(until):
        await trio.lowlevel.wait_readable(peer.socket)
        return True
    try:
        # A non-blocking read of the file descriptor: a read with trio's socket would wait.
        with socket.fromfd(peer.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.setblocking(False)
            return bool(same.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@asynccontextmanager
async def far_server(idle: float, one_way: float, *, hint: bytes = b"") -> AsyncIterator[RawServer]:
    """Run a server that answers each request.

    Args:
        idle: the seconds after a response at which the server closes the connection.
        one_way: the network delay in each direction, in seconds.
        hint: a Keep-Alive field for each response.
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
