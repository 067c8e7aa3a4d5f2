"""One end of the socketpair between master and worker, which carries lines in order.

When one process ends, the kernel closes its end, and the other process reads the end of the stream. ``messages.py``
defines what the lines mean.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import trio

from .messages import LINE_BYTES_MAX, Message, encode

_QUEUE_MAX = 64
"""Messages that wait to be sent. Further ones are dropped: a peer that reads nothing will be killed for it."""
_RECEIVE_BYTES = 64 * 1024


class Channel:
    """A channel that sends without waiting and reads line by line. ``run`` must run for anything to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = False
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._queue, self._queued = trio.open_memory_channel[bytes](_QUEUE_MAX)
        self.dropped = 0
        """Messages that found no room."""

    def send(self, message: Message) -> None:
        """Queue a message, or drop and count it if the peer reads nothing. Never waits, never raises."""
        try:
            self._queue.send_nowait(encode(message))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.dropped += 1

    def send_now(self, message: Message) -> None:
        """Send at once, for a loop so busy that ``run`` is not scheduled; drop and count it if that would block.

        The order of messages is kept, and no line is sent in the middle of another.
        """
        line = encode(message)
        try:
            if self._sending or self._queued.statistics().current_buffer_used or self._socket.send(line) != len(line):
                self.dropped += 1
        except OSError:
            self.dropped += 1

    async def run(self) -> None:
        """Send what is queued until the peer is gone, or ``finish`` was called and the queue is empty."""
        try:
            async for line in self._queued:
                # At once, where the socket takes it: the next turn of a busy loop may be seconds away, and until then
                # ``send_now`` would have to drop what it is given.
                sent = self._send_some(line)
                if sent < len(line):
                    self._sending = True
                    await self._stream.send_all(line[sent:])
                    self._sending = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._queued.close()

    def _send_some(self, line: bytes) -> int:
        """Send what the socket takes now; return the number of bytes. A broken socket is reported by the next wait."""
        try:
            return self._socket.send(line)
        except OSError:
            return 0

    def finish(self) -> None:
        """Take no more messages; ``run`` returns when the last one has been sent."""
        self._queue.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield every line without its line end, until the peer has gone or a line exceeds ``LINE_BYTES_MAX``."""
        buffer = bytearray()
        try:
            while piece := await self._stream.receive_some(_RECEIVE_BYTES):
                buffer += piece
                *whole, rest = buffer.split(b"\n")
                for line in whole:
                    yield bytes(line)
                buffer = rest
                if len(buffer) > LINE_BYTES_MAX:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def close(self) -> None:
        """Close this end at once: the peer sees the end."""
        self._stream.socket.close()
