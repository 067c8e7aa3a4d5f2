"""Lingering close: reading on before a close, so that the client does not lose the last response."""

from __future__ import annotations

import inspect
from typing import Any

import trio

_LINGER_MAX = 2**20
_LINGER_S = 1.0


async def linger(stream: Any) -> None:
    """End the sending half, then read up to 1 MiB, for up to a second. Does not close.

    A socket that is closed with unread bytes sends a RST, and the RST makes the client's kernel discard bytes that the
    client has not read yet. A broken or closed stream ends this without an error; a cancel passes.
    """
    with trio.move_on_after(_LINGER_S):
        try:
            await _send_eof(stream)
            left = _LINGER_MAX
            while left > 0 and (data := await stream.receive_some()):
                left -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client has gone.


async def _send_eof(stream: Any) -> None:
    """End the sending half, if the stream can: ``send_eof`` of trio is async, that of ``net`` is synchronous."""
    send_eof = getattr(stream, "send_eof", None)
    if send_eof is not None and inspect.isawaitable(ending := send_eof()):
        await ending
