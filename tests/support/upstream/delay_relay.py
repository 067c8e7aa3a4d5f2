"""A relay that makes a server far away: what passes through it, ends and resets too, arrives later.

async with delaying(server_port, 0.0125) as relay: ...  # 25 ms away, there and back
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
"""A burst of connections must not wait for SYNs that were dropped: no connection of a real network would."""


class Relay(int):
    """Its port, and how many connections it has taken."""

    taken = 0


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream, delay: float) -> None:
    """One direction. Its end is passed on as what it was: FIN or RST."""
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
                # Who sends learns of the reset as late as of anything else.
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
    """Relay to a port of this machine; each direction takes ``delay`` seconds."""
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
