"""A WebSocket over HTTP/2 (RFC 8441): a stream that carries one.

Made by ``h2.py`` for an extended CONNECT. It holds no rule of WebSocket's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .diagnosis import HeadRefused
from .exchange import ClientLeft
from .h2head import Head
from .h2stream import Message, Stream
from .websocket.handshake import read_opening
from .websocket.session import WebSocket

if TYPE_CHECKING:
    from .h2 import Http2


class WebSocketStream(Stream):
    """A stream whose application speaks WebSocket."""

    def __init__(self, connection: Http2, stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id, head)
        self._ended = False
        """Whether the client has sent its last byte, and it was taken."""
        self._lock = trio.Lock()
        """Held while a frame is sent, for it may have to wait for the window in its middle."""
        self._websocket = WebSocket(connection.service, connection.peer, self, stream_id)

    async def call_application(self) -> None:
        """Serve the WebSocket to its end."""
        try:
            opening = read_opening(self.head.fields, keyed=False)
        except HeadRefused as error:
            refusal = error.refusal
            self.connection.turn_away(self.stream_id, refusal, self.head, self.started_at, complete=False)
            self.leave(refusal.detail)
            return
        await self._websocket.run(self.head, opening, "2")
        if self.answering and not self.finished:
            await super().send_data(b"", end=True)

    def tell(self, told: Message) -> bool:
        """The WebSocket tells its application, or cancels it."""
        self._websocket.left()
        return True

    async def receive(self) -> bytes:
        """What the client sends; nothing once it has ended the stream."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        await self.inbox.changed()
        if self.inbox.gone:
            return b""
        data, more = self.inbox.take()
        self._ended = not more
        await self.flush()
        return data

    async def send_data(self, data: bytes, *, end: bool) -> None:
        """Send, as the client's window allows.

        Raises:
            ClientLeft: nobody is there to take it.
        """
        # Shielded: half a frame would spoil the rest. Each wait has its deadline, and ends when the client leaves.
        with trio.CancelScope(shield=True):
            async with self._lock:
                if not self.gone:
                    await super().send_data(data, end=end)
        if self.gone:
            raise ClientLeft("the client has gone")
