"""One end of the channel between master and worker: a socketpair that carries lines in order.

When a process ends, the kernel closes its end, and the other process reads the end of the stream. ``messages.py``
defines the lines.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import AsyncIterator

import trio

from .messages import LINE_BYTES_MAX, Message, encode

_QUEUE_MAX = 64
"""The bound on messages that wait to be sent; further ones are dropped. The master kills a worker that reads nothing.
"""
_BULK_MAX = 16
"""The messages that wait at which no message of a bulk should be added: the rest is for heartbeats and answers."""
_RECEIVE_BYTES = 64 * 1024


class Channel:
    """One end of a channel. ``send`` gives the socket what it takes at once; the task of ``run`` sends the rest.

    An event loop that is busy with other tasks may not schedule ``run`` for seconds. Its heartbeats must not wait for
    that, or the master would take the process for hung.

    The methods are for the trio thread, except for ``send_from_thread``.

    Args:
        sock: this process's end of the socketpair; ``close`` closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._waiting: deque[bytes] = deque()
        """What the socket has not taken, in order. The first may be the rest of a line, and may be being sent."""
        self._changed = trio.Event()
        self._lock = threading.Lock()
        """Held by whoever gives lines to the socket, or sees that some wait: lines of two threads must not mix."""
        self._finished = False
        self.dropped = 0
        """The number of messages that were dropped."""

    @property
    def has_room(self) -> bool:
        """Whether a message of which there are many should be sent now, rather than later."""
        return not self._finished and len(self._waiting) < _BULK_MAX

    def send(self, message: Message) -> bool:
        """Send a message; drop and count it if it exceeds ``LINE_BYTES_MAX``, too many wait, or the peer is gone.

        Never waits, never raises.

        Returns:
            Whether it was not dropped: the peer reads it, unless one of the processes ends first.
        """
        return self.send_line(encode(message))

    def send_line(self, line: bytes) -> bool:
        """Send an encoded message, as ``send`` does."""
        if self._finished or len(line) > LINE_BYTES_MAX or len(self._waiting) >= _QUEUE_MAX:
            self.dropped += 1
            return False
        with self._lock:
            if not self._waiting:  # Otherwise lines would lose their order, or break into a line that is half sent.
                try:
                    line = line[self._socket.send(line) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self.dropped += 1
                    self.finish()
                    return False
            if line:
                self._waiting.append(line)
                self._changed.set()
        return True

    def send_from_thread(self, message: Message) -> bool:
        """Send a message from another thread while the event loop is blocked. Never waits, never raises.

        Returns:
            Whether the socket has taken it. If it took a part, ``run`` sends the rest when the event loop runs again.
        """
        line = encode(message)
        with self._lock:
            if self._finished or self._waiting:
                return False
            try:
                rest = line[self._socket.send(line) :]
            except OSError:
                return False
            if rest:
                self._waiting.append(rest)
        return True

    async def run(self) -> None:
        """Send what waits, until the peer is gone, or ``finish`` was called and nothing waits.

        A cancel may leave a message half sent; only ``close`` may be called after it.
        """
        try:
            while True:
                while self._waiting:
                    await self._stream.send_all(self._waiting[0])
                    self._waiting.popleft()
                if self._finished:
                    return
                self._changed = trio.Event()
                await self._changed.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.finish()

    def finish(self) -> None:
        """Accept no more messages; ``run`` returns when nothing waits any more."""
        self._finished = True
        self._changed.set()

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
