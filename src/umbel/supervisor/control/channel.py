"""One end of the channel between master and worker: a socketpair that carries lines in order.

When a process ends, the kernel closes its end, and the other process reads the end of the stream. ``messages.py``
defines the lines.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import trio

from .messages import LINE_BYTES_MAX, Message, encode

_QUEUE_MAX = 64
"""The bound on messages that wait to be sent; further ones are dropped. The master kills a worker that reads nothing.
"""
_RECEIVE_BYTES = 64 * 1024


class Channel:
    """One end of a channel. ``send`` only queues a message; the task of ``run`` sends the queued messages.

    Args:
        sock: this process's end of the socketpair; ``close`` closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = False
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._queue, self._queued = trio.open_memory_channel[bytes](_QUEUE_MAX)
        self.dropped = 0
        """The number of messages that were dropped."""

    def send(self, message: Message) -> None:
        """Queue a message; drop and count it if the queue is full, the peer is gone, or it exceeds ``LINE_BYTES_MAX``.

        Never waits, never raises.
        """
        self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """Queue an encoded message, as ``send`` does."""
        if len(line) > LINE_BYTES_MAX:
            self.dropped += 1
            return
        try:
            self._queue.send_nowait(line)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.dropped += 1

    def send_now(self, message: Message) -> None:
        """Send a message at once, without ``run``. Never waits, never raises.

        The message is dropped and counted if other messages wait to be sent, or if the socket does not take it now. The
        method is for an event loop that is too busy to schedule ``run``.
        """
        line = encode(message)
        try:
            # Not while a line is half sent or others wait: lines must keep their order and stay whole.
            if self._sending or self._queued.statistics().current_buffer_used or self._socket.send(line) != len(line):
                self.dropped += 1
        except OSError:
            self.dropped += 1

    async def run(self) -> None:
        """Send the queued messages until the peer is gone, or ``finish`` was called and the queue is empty.

        A cancel may leave a message half sent; only ``close`` may be called after it.
        """
        try:
            async for line in self._queued:
                # Without a checkpoint if the socket takes it: the next turn of a busy loop may be seconds away, and
                # ``send_now`` drops messages until this line is sent.
                sent = self._send_some(line)
                if sent < len(line):
                    self._sending = True
                    await self._stream.send_all(line[sent:])
                    self._sending = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._queued.close()

    def _send_some(self, line: bytes) -> int:
        """Send the bytes that the socket takes now; return their number. ``send_all`` reports a broken socket."""
        try:
            return self._socket.send(line)
        except OSError:
            return 0

    def finish(self) -> None:
        """Accept no more messages; ``run`` returns after the last one was sent."""
        self._queue.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield each received line without its line end.

        Ends without an error when the peer is gone, when this end was closed, or when a line exceeds
        ``LINE_BYTES_MAX``.
        """
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
        """Close this end at once; the peer reads the end of the stream."""
        self._stream.socket.close()
