"""A scripted upstream over TCP, TLS or a Unix socket: the test sends and receives its bytes.

    async with raw_server(handler) as port: ...

``handler`` is called with one ``Peer`` per connection. ``answering(b"HTTP/1.1 200 OK\\r\\n…")`` makes a usual handler.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

Handler = Callable[["Peer"], Awaitable[object]]


class Peer:
    """The upstream's end of one connection. Its socket is closed when the handler returns."""

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType, number: int) -> None:
        self.stream = stream
        self.socket = sock
        self.number = number
        """The number of the connection; 0 is the server's first."""
        self.buffer = b""

    async def read_head(self) -> bytes:
        """Read a request head with its empty line; return ``b""`` if the client has closed."""
        while b"\r\n\r\n" not in self.buffer:
            if not await self._more():
                return b""
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def read_exactly(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer if the client closes."""
        while len(self.buffer) < size and await self._more():
            pass
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def read_until(self, end: bytes) -> bytes:
        """Read up to and including ``end``, or less if the client closes."""
        while end not in self.buffer and await self._more():
            pass
        data, found, self.buffer = self.buffer.partition(end)
        return data + found

    async def read_request(self) -> tuple[bytes, bytes]:
        """Read a request head and body; a chunked body is returned with its framing."""
        head = await self.read_head()
        fields = head.lower()
        if b"content-length:" in fields:
            return head, await self.read_exactly(int(fields.split(b"content-length:")[1].split(b"\r\n")[0]))
        if b"transfer-encoding: chunked" in fields:
            return head, await self.read_until(b"0\r\n\r\n")
        return head, b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def closed(self) -> bool:
        """Wait until the client closes; return True if it sent nothing before."""
        quiet = not self.buffer
        try:
            while data := await self.stream.receive_some():
                quiet = quiet and not data
        except trio.BrokenResourceError:
            pass
        return quiet

    def reset(self) -> None:
        """Close the connection with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self.buffer += data
        return bool(data)


class RawServer(int):
    """The port of the server, with its connections."""

    connections: list[Peer]
    open: int
    """The number of connections whose handler runs."""
    ended: trio.lowlevel.ParkingLot
    listener: trio.socket.SocketType

    def refuse(self) -> None:
        """Refuse further connections."""
        self.listener.shutdown(socket.SHUT_RDWR)

    async def all_closed(self) -> None:
        """Wait until every handler has returned; one that reads returns when its client closes."""
        with trio.fail_after(5):
            while self.open:
                await self.ended.park()


async def _serve(
    listener: trio.socket.SocketType, handler: Handler, tls: ssl.SSLContext | None, server: RawServer
) -> None:
    async def serve_one(sock: trio.socket.SocketType) -> None:
        stream: trio.abc.Stream = trio.SocketStream(sock)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True)
        peer = Peer(stream, sock, len(server.connections))
        server.connections.append(peer)
        server.open += 1
        try:
            await handler(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client has closed; the test checks the client.
        finally:
            server.open -= 1
            server.ended.unpark_all()
            sock.close()

    async with trio.open_nursery() as nursery:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError:
                return  # ``refuse`` has shut the listener down.
            nursery.start_soon(serve_one, sock)


@asynccontextmanager
async def raw_server(
    handler: Handler,
    *,
    tls: ssl.SSLContext | None = None,
    uds: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[RawServer]:
    """Run a server with ``handler`` on a free port of ``host``, or on the Unix socket ``uds``; yield its port."""
    with trio.socket.socket(socket.AF_INET if uds is None else socket.AF_UNIX) as listener:
        await listener.bind((host, port) if uds is None else uds)
        listener.listen(128)
        server = RawServer(listener.getsockname()[1] if uds is None else 0)
        server.connections, server.open, server.ended = [], 0, trio.lowlevel.ParkingLot()
        server.listener = listener
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, listener, handler, tls, server)
            try:
                yield server
            finally:
                nursery.cancel_scope.cancel(reason="the test is over")


def answering(*responses: bytes, close: bool = False, reset: bool = False) -> Handler:
    """Make a handler that answers the requests of a connection with the responses in turn, then with the last one.

    ``close``: close the connection after each response; ``reset``: close it with an RST.
    """

    async def handler(peer: Peer) -> None:
        count = 0
        while (await peer.read_request())[0]:
            await peer.send(responses[min(count, len(responses) - 1)])
            count += 1
            if reset:
                peer.reset()
            if close or reset:
                return

    return handler


def response(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Encode a response with Content-Length."""
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def silent(peer: Peer) -> None:
    """A handler that reads everything and never answers."""
    await peer.closed()


def field_value(head: bytes, name: str) -> str | None:
    """Return the value of the first field of ``name`` (in lower case) in a head; None if the head has none."""
    for line in head.decode("latin-1").split("\r\n")[1:]:
        if line.lower().startswith(f"{name}: "):
            return line.partition(": ")[2]
    return None


def open_sockets() -> int:
    """Return the number of sockets that this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:
            continue  # The file descriptor of the listing itself.
    return count
