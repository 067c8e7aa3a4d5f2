"""Connections of a pool over memory streams, for the virtual clock.

``MemoryDial(nursery, handler)`` is the ``dial`` of a pool. For each connection it runs ``handler(server_end)`` in the
nursery.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from umbel.net.epoll import AnyReader, new_reader
from umbel.net.stream import Listener, PlainStream, Stream
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


class PushingMemoryStream(PlainStream):
    """A stream over trio's memory streams that pushes to a listener, as a socket does.

    It has no flow control: a task of ``nursery`` takes what the peer sends at once.
    """

    def __init__(self, end: ServerEnd, peer: ServerEnd, nursery: trio.Nursery) -> None:
        self._end, self._peer, self._nursery = end, peer, nursery
        self._closed = self._over = False
        self._received = b""
        self._listener: Listener | None = None
        self._arrived = trio.Event()
        self.unsent, self.send_error, self.ended_at = b"", None, None
        nursery.start_soon(self._take_in)

    async def _take_in(self) -> None:
        try:
            while data := bytes(await self._end.receive_stream.receive_some()):
                self._received += data
                self._push()
        except trio.ClosedResourceError:
            return
        except trio.BrokenResourceError:
            pass
        self._over = True
        self.ended_at = trio.current_time()
        self._push()

    def _push(self) -> None:
        self._arrived.set()
        listener = self._listener
        if listener is not None and self._received:
            data, self._received = self._received, b""
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None
        if self._over and not self._received and (listener := self._listener) is not None:
            self._listener = None
            listener.on_eof()

    def send_now(self, data: bytes | memoryview) -> bool:
        if self._closed:
            raise trio.ClosedResourceError
        self._end.send_stream._outgoing.put(bytes(data))
        if not trio.testing.memory_stream_pump(self._end.send_stream, self._peer.receive_stream):
            raise trio.BrokenResourceError
        return True

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        with suppress(trio.BrokenResourceError):
            self.send_now(data)
        self.listen(listener)

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        if self._received or self._over:
            self._nursery.start_soon(self._push_later)

    async def _push_later(self) -> None:
        self._push()

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.send_now(data)

    async def pass_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_ready(self, limit: int = 0) -> bytes | None:
        return await self.receive_some() if self._received or self._over or self._closed else None

    async def receive_some(self, limit: int = 0) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._received or self._over or self._closed):
            self._arrived = trio.Event()
            await self._arrived.wait()
        if self._closed:
            raise trio.ClosedResourceError
        data, self._received = self._received, b""
        return data

    def is_quiet(self) -> bool:
        return not (self._received or self._over or self._closed)

    def received_ago(self) -> None:
        """Return None: there is no kernel that has the time."""

    @property
    def closed(self) -> bool:
        return self._closed

    def send_eof(self) -> None:
        self._end.send_stream.close()

    def close_now(self) -> None:
        if not self._closed:
            self._closed = True
            self._end.send_stream.close()
            self._end.receive_stream.close()
            self._arrived.set()
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.on_error(trio.ClosedResourceError("the stream was closed"))

    def close(self) -> None:
        self.close_now()


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
        self._pushing = pushing
        self.streams: list[MemoryStream | PushingMemoryStream] = []
        self.origins: list[Origin] = []

    async def __call__(self, origin: Origin, timeout: float | None) -> Stream:
        await trio.sleep(self._delay)
        ours, theirs = self._pair()
        stream = PushingMemoryStream(ours, theirs, self._nursery) if self._pushing else MemoryStream(ours)
        self.streams.append(stream)
        self.origins.append(origin)
        self._nursery.start_soon(self._serve, theirs)
        return stream

    @property
    def open(self) -> int:
        return sum(not stream.closed for stream in self.streams)

    async def _serve(self, end: ServerEnd) -> None:
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
