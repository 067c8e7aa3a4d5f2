"""The bytes of an HTTP/2 stream after its request was taken (RFC 8441): another protocol follows, such as WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .stream import Stream


class StreamBytes:
    """``ByteStream`` over the DATA frames of a stream that was taken."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        """Held during ``send_all``: a wait for the window must not let another task's bytes in between."""
        self._eof_sent = False

    async def receive_some(self) -> bytes:
        """Receive bytes of the client; ``b""`` at their end; see ``ByteStream``."""
        stream = self._stream
        buffer = stream.receive_buffer
        if buffer.gone or buffer.exhausted:
            await trio.lowlevel.checkpoint()
            return b""
        await buffer.changed()
        if buffer.gone:
            return b""
        data = buffer.take()
        stream.connection.sender.flush_soon()
        return data

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``, shielded from cancels; see ``ByteStream``."""
        # Shielded: a frame that is sent in part would corrupt the frames after it. Each wait has a deadline.
        with trio.CancelScope(shield=True):
            async with self._sending:
                if self._eof_sent:
                    raise trio.ClosedResourceError("the end has been sent")
                if not self._stream.finished:
                    await self._stream._send_content(data, end=False)
        self._stream._check_gone()

    async def send_eof(self) -> None:
        """End the sending direction; see ``ByteStream``."""
        with trio.CancelScope(shield=True):
            async with self._sending:
                if not self._eof_sent and not self._stream.finished:
                    self._eof_sent = True
                    self._stream.connection.send_data(self._stream.stream_id, b"", end=True)
                    await self._stream._flush()
