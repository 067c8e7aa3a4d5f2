"""Connections of a pool over memory streams, for the virtual clock.

``MemoryDial(nursery, handler)`` is the ``dial`` of a pool. For each connection it runs ``handler(server_end)`` in the
nursery.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from umbel.net import memory_stream
from umbel.net.epoll import AnyReader, new_reader
from umbel.net.memory_stream import MemoryReader
from umbel.net.stream import Stream
from umbel.upstream.replicas.origin import Origin

ServerEnd = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryStream:
    """A ``Stream`` over trio's memory streams. ``noisy``: the peer seems to have sent data while it was idle."""

    def __init__(self, end: ServerEnd) -> None:
        self._end = end
        self.noisy = False
        self.closed = False

    async def send_all(self, data: bytes) -> None:
        await self._end.send_all(data)

    async def receive_some(self) -> bytes:
        return bytes(await self._end.receive_some())

    def is_quiet(self) -> bool:
        return not self.noisy

    def close_now(self) -> None:
        self.closed = True
        self._end.send_stream.close()
        self._end.receive_stream.close()

    def send_eof(self) -> None:
        self._end.send_stream.close()

    def close(self) -> None:
        self.close_now()


class PushingStream(memory_stream.MemoryStream):
    """A stream that pushes to a listener, as a socket does."""

    @classmethod
    def pair(cls, reader: MemoryReader) -> tuple[PushingStream, PushingStream]:
        one, other = memory_stream.MemorySocket.pair(reader)
        return cls(one, reader), cls(other, reader)

    @property
    def closed(self) -> bool:
        return self._closed

    async def aclose(self) -> None:
        self.close()


class MemoryDial:
    """Opens memory streams, each served by ``handler`` in ``nursery``.

    Args:
        delay: the seconds that connecting takes.
        lockstep: a send waits until the other side has received the data.
        pushing: the streams can push.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        handler: Callable[[ServerEnd], Awaitable[object]],
        *,
        delay: float = 0.0,
        lockstep: bool = False,
        pushing: bool = False,
    ) -> None:
        self._nursery = nursery
        self._handler = handler
        self._delay = delay
        self._pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self._reader = MemoryReader() if pushing else None
        if self._reader is not None:
            nursery.start_soon(self._reader.run)
        self.streams: list[MemoryStream | PushingStream] = []
        self.origins: list[Origin] = []

    async def __call__(self, origin: Origin, timeout: float | None) -> Stream:
        await trio.sleep(self._delay)
        stream: MemoryStream | PushingStream
        theirs: ServerEnd | PushingStream
        if self._reader is not None:
            stream, theirs = PushingStream.pair(self._reader)
        else:
            ours, theirs = self._pair()
            stream = MemoryStream(ours)
        self.streams.append(stream)
        self.origins.append(origin)
        self._nursery.start_soon(self._serve, theirs)
        return stream

    @property
    def open(self) -> int:
        return sum(not stream.closed for stream in self.streams)

    async def _serve(self, end: Any) -> None:
        try:
            await self._handler(end)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await end.aclose()


def echo_server(body: bytes = b"ok") -> Callable[[ServerEnd], Awaitable[object]]:
    """Make a handler that answers each request, which must have no body, with ``body``."""

    async def handler(end: ServerEnd) -> None:
        buffer = b""
        while data := await end.receive_some():
            buffer += data
            while b"\r\n\r\n" in buffer:
                _, _, buffer = buffer.partition(b"\r\n\r\n")
                await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return handler


@asynccontextmanager
async def running_reader(make: Callable[[], AnyReader] = new_reader) -> AsyncIterator[AnyReader]:
    """Run a socket reader within the block."""
    async with trio.open_nursery() as nursery:
        reader = make()
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel(reason="the test is over")
