"""Lingering close: what a server does before it closes a connection, so that the client can read the last response.

Nothing is closed here.
"""

from __future__ import annotations

import inspect
from typing import Any

import trio

_LINGER_MAX = 2**20
_LINGER_S = 1.0


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
