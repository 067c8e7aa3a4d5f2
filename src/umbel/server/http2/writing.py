"""Writes that are never cut in the middle and never wait for ever, and a close that the last response survives.

Nothing is closed here.
"""

from __future__ import annotations

import inspect
from typing import Any

import trio

from ..limits.client_clocks import WriteClock

_LINGER_MAX = 2**20
_LINGER_S = 1.0


class ClientStuckError(Exception):
    """The client took nothing for as long as a write may take."""


async def write(clock: WriteClock, stream: Any, data: bytes) -> None:
    """Send all of ``data``, even if cancelled: half a frame would break the connection for all that share it.

    Raises:
        ClientStuckError: it did not take 64 KiB within the time of ``clock``; the stream is of no use any more.
        trio.BrokenResourceError: the client has gone.
        trio.ClosedResourceError: the stream was closed.
    """
    view, sent = memoryview(data), 0
    while sent < len(view):
        piece = view[sent : sent + clock.room]
        with trio.CancelScope(deadline=clock.begin(), shield=True) as scope:
            try:
                await stream.send_all(piece)
            finally:
                await clock.end_write()
        if scope.cancelled_caught:
            raise ClientStuckError
        clock.took(len(piece))
        sent += len(piece)


async def linger(stream: Any) -> None:
    """Read on for a moment, so that a client hears the last word: closing with bytes unread would take it back.

    (TCP answers them with a reset, and a reset throws away what the client has not read yet.)
    """
    with trio.move_on_after(_LINGER_S):
        try:
            await _send_eof(stream)
            left = _LINGER_MAX
            while left > 0 and (data := await stream.receive_some()):
                left -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # It has gone, with or without it.


async def _send_eof(stream: Any) -> None:
    """Half-close a stream that can: trio's streams have an async method for it, those of ``net`` a synchronous one."""
    send_eof = getattr(stream, "send_eof", None)
    if send_eof is not None and inspect.isawaitable(ending := send_eof()):
        await ending
