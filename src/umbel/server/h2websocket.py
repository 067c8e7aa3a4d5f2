"""A handshake of WebSocket over HTTP/2 (RFC 8441): what ``websocket`` needs of an ``InboundRequest``.

Made by ``h2.py`` for an extended CONNECT. It holds no rule of WebSocket's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from ..core.inbound import ByteStream, ClientGoneError, Field
from .h2head import Head
from .h2stream import Message, Stream
from .websocket import serve_websocket

if TYPE_CHECKING:
    from ..events import Recorder, RequestEnded
    from .h2 import Http2


class WebSocketStream(Stream):
    """A stream whose application speaks WebSocket."""

    def __init__(self, connection: Http2, stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id, head)
        self.told_gone: Callable[[], object] | None = None

    async def call_application(self) -> None:
        """Serve the WebSocket to its end."""
        request: Any = Http2Handshake(self)  # as much of an InboundRequest as a WebSocket needs
        await serve_websocket(self.connection.service, self.connection.service.app, request)

    def tell(self, told: Message) -> bool:
        """The WebSocket tells its application, or cancels it."""
        if self.gone and self.told_gone is not None:
            self.told_gone()
        return True


class Http2Handshake:
    """An extended CONNECT, and its bytes from ``take`` on."""

    version = "2"

    def __init__(self, stream: WebSocketStream) -> None:
        head, peer = stream.head, stream.connection.peer
        self.method, self.target, self.fields = head.method, head.path, tuple(head.fields)
        self.scheme = "https" if peer.secure else "http"
        self.peer, self.local = peer.client, peer.server
        self.started = stream.started_at
        self._stream = stream
        self._ended = False
        """Whether the client has sent its last byte, and it was taken."""
        self._kept: tuple[int, list[Field], bytes]
        """The answer that ``drained`` is to send."""

    # The client's side.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """As ``InboundRequest`` says."""
        self._stream.told_gone = callback
        if self._stream.gone and callback is not None:
            callback()

    async def receive_some(self) -> bytes:
        """As ``ByteStream`` says."""
        inbox = self._stream.inbox
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        await inbox.changed()
        if inbox.gone:
            return b""
        data, more = inbox.take()
        self._ended = not more
        await self._stream.flush()
        return data

    # The answer.

    @property
    def unanswered(self) -> bool:
        """As ``InboundRequest`` says."""
        return not self._stream.answering

    @property
    def answered(self) -> bool:
        """As ``InboundRequest`` says."""
        return self._stream.finished

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Keep the whole answer for ``drained``."""
        self._kept = status, list(fields), body
        return False

    async def drained(self) -> None:
        """Send it."""
        status, fields, body = self._kept
        await self._stream.send_head(status, fields)
        await self._send(body, end=True)

    async def start(self, status: int, fields: Sequence[Field]) -> None:
        """As ``InboundRequest`` says."""
        await self._stream.send_head(status, list(fields))

    async def send(self, data: bytes) -> None:
        """As ``InboundRequest`` says."""
        await self._send(data, end=False)
        await trio.lowlevel.checkpoint()

    async def finish(self, trailers: Sequence[Field] = ()) -> None:
        """As ``InboundRequest`` says; there are no trailers."""
        await self._send(b"", end=True)

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """As ``InboundRequest`` says."""
        await self._stream.send_head(status, list(fields))
        await self.send_all(b"")
        return self

    async def send_all(self, data: bytes) -> None:
        """As ``ByteStream`` says."""
        # Shielded: half a frame would spoil the rest. Each wait has its deadline, and ends when the client leaves.
        with trio.CancelScope(shield=True):
            await self._send(data, end=False)

    async def send_eof(self) -> None:
        """As ``ByteStream`` says."""
        if not self._stream.finished:
            with suppress(ClientGoneError):
                await self._send(b"", end=True)

    async def _send(self, data: bytes, *, end: bool) -> None:
        if not self._stream.gone:
            await self._stream.send_data(b"" if self._stream.bodiless else data, end=end)
        if self._stream.gone:
            raise ClientGoneError("the client has gone")

    def cut(self, reason: str) -> None:
        """As ``InboundRequest`` says."""
        self._stream.cut_short = True
        self._stream.connection.displace(self._stream, reason)

    # The application's task, and the record.

    async def run_in_task(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run it in the stream's task, which serves nothing else."""
        await function()

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """As ``InboundRequest`` says."""
        self._stream.file(recorder, ended)
