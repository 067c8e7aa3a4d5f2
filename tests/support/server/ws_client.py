"""A WebSocket client over wsproto, and the bytes of an opening handshake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
import wsproto
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, Request, TextMessage

Fields = Iterable[tuple[bytes, bytes]]

UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)


def upgrade(path: bytes = b"/ws", more: bytes = b"") -> bytes:
    """The head of a WebSocket opening handshake; ``more`` are further field lines."""
    return UPGRADE % (path, more)


class WsClient:
    """One WebSocket. It answers ping and close frames by itself."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ws = wsproto.WSConnection(ConnectionType.CLIENT)
        self._events: list[Any] = []
        self.closed: CloseConnection | None = None

    async def open(self, path: str = "/ws", **options: Any) -> Any:
        """Send the opening handshake and return the server's response: AcceptConnection or RejectConnection."""
        await self.send(Request(host="gateway.test", target=path, **options))
        return await self.event()

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.ws.send(event))

    async def text(self, text: str) -> None:
        await self.send(TextMessage(text))

    async def event(self) -> Any:
        """Return the next event, or None at the end of the stream."""
        while not self._events:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return None
            self.ws.receive_data(data)
            for event in self.ws.events():
                if isinstance(event, Ping):
                    await self.send(event.response())
                elif isinstance(event, CloseConnection):
                    self.closed = event
                    if self.ws.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                        with suppress(trio.BrokenResourceError):
                            await self.send(event.response())
                    self._events.append(event)
                else:
                    self._events.append(event)
        return self._events.pop(0)

    async def message(self) -> str | bytes:
        """Return the next complete message."""
        parts: list[Any] = []
        while True:
            event = await self.event()
            assert isinstance(event, TextMessage | BytesMessage), event
            parts.append(event.data)
            if event.message_finished:
                return ("" if isinstance(event, TextMessage) else b"").join(parts)

    async def ended(self) -> int | None:
        """Read to the end and return the code of the server's close frame, or None if there was none."""
        while await self.event() is not None:
            pass
        return int(self.closed.code) if self.closed is not None else None


@asynccontextmanager
async def ws_client(port: int) -> AsyncIterator[WsClient]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield WsClient(stream)


__all__ = ["AcceptConnection", "RejectConnection", "WsClient", "upgrade", "ws_client"]
