"""A TCP relay that delays data, FIN and RST in both directions, as a long network path does.

async with delaying(server_port, 0.0125) as relay: ...  # a round-trip time of 25 ms
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

CHUNK = 64 * 1024
BACKLOG = 4096
"""Large, so that no SYN of a burst of connections is dropped, which would delay it by a second."""


class Relay(int):
    """The port of the relay; ``taken`` is the number of accepted connections."""

    taken = 0


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream, delay: float) -> None:
    """Relay one direction. A FIN is passed on as a FIN, and an RST as an RST."""
    send, receive = trio.open_memory_channel[tuple[float, bytes | None]](math.inf)

    async def read() -> None:
        async with send:
            while True:
                try:
                    data: bytes | None = await source.receive_some(CHUNK)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = None
                await send.send((trio.current_time() + delay, data))
                if not data:
                    return

    async def write() -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            try:
                if data:
                    await sink.send_all(data)
                elif data is None:
                    _reset(sink)
                else:
                    await sink.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The RST of the receiver reaches the sender after the same delay.
                await trio.sleep(delay)
                _reset(source)
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write)


def _reset(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() >= 0:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


async def _carry(client: socket.socket, server_port: int, delay: float) -> None:
    near = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    async with near:
        await trio.sleep(delay)
        try:
            far = await trio.open_tcp_stream("127.0.0.1", server_port)
        except OSError:
            _reset(near)
            return
        async with far:
            for stream in (near, far):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pass_on, near, far, delay)
                nursery.start_soon(_pass_on, far, near, delay)


@asynccontextmanager
async def delaying(server_port: int, delay: float) -> AsyncIterator[Relay]:
    """Relay connections to a port of this machine, with ``delay`` seconds in each direction."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        relay = Relay(listener.getsockname()[1])

        async def accept(nursery: trio.Nursery) -> None:
            while True:
                sock, _ = await listener.accept()
                relay.taken += 1
                nursery.start_soon(_carry, socket.socket(fileno=sock.detach()), server_port, delay)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, nursery)
            try:
                yield relay
            finally:
                nursery.cancel_scope.cancel(reason="the test is over")
