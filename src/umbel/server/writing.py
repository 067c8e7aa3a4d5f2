"""Writes to a client that are never cut in the middle and never wait for ever, and a last word that arrives.

Used by the guarded protocols (``h2.py``, ``h1websocket.py``) for all they send. It closes nothing.
"""

from __future__ import annotations

import trio

from .service import Service

_PIECE = 64 * 1024
"""Bytes per deadline: it measures progress and not the size of the answer. A slow client may take its time over a
large one; a client that reads nothing may not."""

_LINGER_MAX = 2**20
_LINGER_S = 1.0


class ClientStuckError(Exception):
    """The client took nothing for as long as a write may take."""


async def write(service: Service, stream: trio.abc.SendStream, data: bytes) -> None:
    """Send all of ``data``, even if cancelled: half a frame would break the connection for all that share it.

    Raises:
        ClientStuckError: the write deadline passed without 64 KiB of progress; the stream is of no use any more.
        trio.BrokenResourceError: the client has gone.
        trio.ClosedResourceError: the stream was closed.
    """
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        with trio.CancelScope(deadline=service.write_deadline(), shield=True) as scope:
            await stream.send_all(view[start : start + _PIECE])
        if scope.cancelled_caught:
            raise ClientStuckError


async def linger(stream: trio.abc.Stream) -> None:
    """Read on for a moment, so that a client hears the last word: closing with bytes unread would take it back.

    (TCP answers them with a reset, and a reset throws away what the client has not read yet.)
    """
    with trio.move_on_after(_LINGER_S):
        try:
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            left = _LINGER_MAX
            while left > 0 and (data := await stream.receive_some(_PIECE)):
                left -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # It has gone, with or without it.
