"""The bytes of an HTTP/1.1 connection after a request of it was taken: another protocol follows, such as WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .request_transport import RequestTransport


class TakenConnection:
    """``ByteStream`` over the connection of a request that was answered by ``take``.

    ``write(data)`` sends bytes, and raises ``ClientGoneError`` if the client has left or does not read.
    """

    __slots__ = ("_connection", "_lock", "_write")

    def __init__(self, connection: RequestTransport, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._connection = connection
        self._write = write
        self._lock = trio.Lock()
        """Held during ``send_all``, which several tasks may call."""

    async def receive_some(self) -> bytes:
        """Receive bytes of the client; ``b""`` at their end; see ``ByteStream``."""
        if self._connection.buffer:  # The client may send behind its Upgrade at once.
            await trio.lowlevel.checkpoint()
            return self._connection.take_buffer()
        return await self._connection.receive()

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``, shielded from cancels; see ``ByteStream``."""
        # Shielded: a frame that is sent in part would corrupt the frames after it. write_timeout bounds the wait.
        with trio.CancelScope(shield=True):
            async with self._lock:
                await self._write(data)

    async def send_eof(self) -> None:
        """End the sending direction; see ``ByteStream``."""
        await trio.lowlevel.checkpoint()
        self._connection.stream.send_eof()
