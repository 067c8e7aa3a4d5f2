"""Requests over HTTP/1.1 or HTTP/2, sent and received step by step with the same methods.

    async with opened("HTTP/2", port) as channel:
        await channel.request("POST", "/echo", end=False)
        await channel.body(b"…", end=True)
        status, headers = await channel.answer()

h11 and h2 parse the responses, so a malformed response raises. The connection is read only when a test calls a method.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.events
import h11
import trio

Fields = Iterable[tuple[str, str]]
PROTOCOLS = ("HTTP/1.1", "HTTP/2")
HOST = "gateway.test"


class Channel(Protocol):
    """A connection with one request at a time."""

    interim: list[int]
    """The statuses of the interim (1xx) responses."""
    trailers: list[tuple[str, str]]

    async def request(self, method: str, target: str, headers: Fields = (), *, end: bool = True) -> None:
        """Send a request head; ``end``: the request has no body."""

    async def body(self, data: bytes, *, end: bool = False) -> None:
        """Send a part of the request body; ``end``: it is the last part."""

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Wait for the response head and return its status and fields.

        Raises:
            EOFError: the connection or the stream ended before the head.
        """

    async def part(self) -> bytes:
        """Return some bytes of the response body, or ``b""`` at its regular end.

        Raises:
            EOFError: the connection or the stream ended before the end of the body.
        """

    async def abandon(self) -> None:
        """Reset the connection (HTTP/1.1) or the stream (HTTP/2)."""


class _Common:
    interim: list[int]
    trailers: list[tuple[str, str]]

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.interim = []
        self.trailers = []


class Http1(_Common):
    """An HTTP/1.1 connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._h11 = h11.Connection(h11.CLIENT)
        self._chunked = False

    async def request(self, method: str, target: str, headers: Fields = (), *, end: bool = True) -> None:
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        fields = [("host", HOST), *headers]
        if not end and not any(name == "content-length" for name, _ in fields):
            fields.append(("transfer-encoding", "chunked"))
        await self._send(h11.Request(method=method, target=target, headers=fields))
        if end:
            await self._send(h11.EndOfMessage())

    async def body(self, data: bytes, *, end: bool = False) -> None:
        await self._send(h11.Data(data=data))
        if end:
            await self._send(h11.EndOfMessage())

    async def answer(self) -> tuple[int, dict[str, str]]:
        while True:
            event = await self._event()
            if isinstance(event, h11.InformationalResponse):
                self.interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                return event.status_code, {n.decode(): v.decode("latin-1") for n, v in event.headers}
            else:
                raise EOFError(f"expected a response head, got {event}")

    async def part(self) -> bytes:
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.trailers = [(n.decode(), v.decode("latin-1")) for n, v in event.headers]
            return b""
        raise EOFError(f"expected a body, got {event}")

    async def abandon(self) -> None:
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def _send(self, event: Any) -> None:
        data = self._h11.send(event)
        if data:
            await self.stream.send_all(data)

    async def _event(self) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if "closed connection" in str(error):  # h11's words for an end within a message
                    raise EOFError(str(error)) from error
                raise
            if event is not h11.NEED_DATA:
                return event
            try:
                self._h11.receive_data(await self.stream.receive_some())
            except trio.BrokenResourceError as error:
                raise EOFError("the connection was reset") from error


class Http2(_Common):
    """An HTTP/2 connection with prior knowledge, and one stream at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.id = 0
        self._events: list[Any] = []
        self.h2.initiate_connection()

    async def request(self, method: str, target: str, headers: Fields = (), *, end: bool = True) -> None:
        self.id = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", HOST), (":path", target)]
        self.h2.send_headers(self.id, [*pseudo, *headers], end_stream=end)
        await self.flush()

    async def body(self, data: bytes, *, end: bool = False) -> None:
        while len(data) > (room := self.room()):
            if room:
                self.h2.send_data(self.id, data[:room])
                data = data[room:]
                await self.flush()
            else:
                await self._read()
        self.h2.send_data(self.id, data, end_stream=end)
        await self.flush()

    async def answer(self) -> tuple[int, dict[str, str]]:
        while True:
            event = await self._event()
            if isinstance(event, h2.events.InformationalResponseReceived):
                self.interim.append(int(dict(event.headers)[":status"]))
            elif isinstance(event, h2.events.ResponseReceived):
                headers = dict(event.headers)
                return int(headers.pop(":status")), headers
            else:
                raise EOFError(f"expected a response head, got {event}")

    async def part(self) -> bytes:
        while True:
            event = await self._event()
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                await self.flush()
                if event.data:
                    return event.data
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                return b""
            else:
                raise EOFError(f"expected a body, got {event}")

    async def abandon(self) -> None:
        self.h2.reset_stream(self.id, 8)
        await self.flush()

    def room(self) -> int:
        """Return how many bytes of body may be sent now: the flow-control window, at most one frame."""
        return min(self.h2.local_flow_control_window(self.id), self.h2.max_outbound_frame_size)

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def _event(self) -> Any:
        """Return the next event of the request's stream, or the event that ends the connection."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, h2.events.ConnectionTerminated) or (
                    getattr(event, "stream_id", None) == self.id
                    and not isinstance(event, h2.events.WindowUpdated | h2.events.PriorityUpdated)
                ):
                    return event
            await self._read()

    async def _read(self) -> None:
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError as error:
            raise EOFError("the connection was reset") from error
        if not data:
            raise EOFError("the server closed the connection")
        self._events += self.h2.receive_data(data)
        await self.flush()


@asynccontextmanager
async def opened(protocol: str, port: int) -> AsyncIterator[Http1 | Http2]:
    """A connection with ``protocol``, one of PROTOCOLS."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Http1(stream) if protocol == "HTTP/1.1" else Http2(stream)


async def rest(channel: Channel) -> bytes:
    """Read the rest of the response body."""
    body = b""
    while part := await channel.part():
        body += part
    return body


async def ask(
    protocol: str, port: int, method: str, target: str, headers: Fields = (), body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a new connection and return the status, fields and body of the response."""
    with trio.fail_after(10):
        async with opened(protocol, port) as channel:
            fields = [*headers, *([("content-length", str(len(body)))] if body is not None else [])]
            await channel.request(method, target, fields, end=body is None)
            if body is not None:
                await channel.body(body, end=True)
            status, received = await channel.answer()
            return status, received, await rest(channel)
