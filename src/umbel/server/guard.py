"""A deadline on every write to a client, put around Hypercorn whichever way it is started.

``Umbel`` installs it when it is made; ``UMBEL_GUARD=off`` in the environment leaves Hypercorn as it is. It replaces one
private name of Hypercorn 0.18, and a test fails when that name's code changes upstream.
"""

from __future__ import annotations

import os

import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer

WRITE_TIMEOUT = 30.0
"""Seconds, for an application that does not say (``write_timeout``)."""

_PIECE = 64 * 1024
"""Bytes per deadline, so that the deadline measures progress and not the size of the answer: a slow client may take
its time over a large one, a client that reads nothing may not."""

_unguarded = TCPServer.protocol_send


def install() -> None:
    """Put the guard on, once per process, unless ``UMBEL_GUARD=off``."""
    if os.environ.get("UMBEL_GUARD", "").lower() != "off":
        TCPServer.protocol_send = _guarded_send  # type: ignore[method-assign]  # that is what a guard is


def installed() -> bool:
    """Whether the guard is on."""
    return TCPServer.protocol_send is _guarded_send


async def _guarded_send(self: TCPServer, event: Event) -> None:
    """Hypercorn's ``protocol_send``, with a deadline in its shield.

    The shield must stay: a request cut in the middle of a frame would break an HTTP/2 connection for the others. But
    without a deadline in it, a client that does not read holds its task, and a shutdown, for ever.
    """
    if not isinstance(event, RawData):
        await _unguarded(self, event)
        return
    async with self.send_lock:
        try:
            in_time = await _send(self.stream, event.data, _write_timeout(self))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
            return
    if not in_time:
        # Closing wakes the connection's reader, which ends the connection's task and its requests.
        await trio.aclose_forcefully(self.stream)
        await self.protocol.handle(Closed())


async def _send(stream: trio.abc.Stream, data: bytes, timeout: float) -> bool:
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        with trio.move_on_after(timeout, shield=True) as scope:
            await stream.send_all(view[start : start + _PIECE])
        if scope.cancelled_caught:
            return False
    return True


def _write_timeout(server: TCPServer) -> float:
    # Hypercorn wraps the application once; Umbel's carries its own limit.
    timeout = getattr(getattr(server.app, "app", None), "write_timeout", WRITE_TIMEOUT)
    return float(timeout)
