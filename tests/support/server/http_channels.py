"""One request over HTTP/1.1 or over HTTP/2, by the same few methods, step by step.

    async with opened("HTTP/2", port) as channel:
        await channel.request("POST", "/echo", end=False)
        await channel.body(b"…", end=True)
        status, headers = await channel.answer()

h11 and h2 read what comes, so an answer that is not well formed raises. Nothing is read that a test does not ask for.
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
    """A connection, and a request on it at a time."""

    interim: list[int]
    """Statuses before the answer's."""
    trailers: list[tuple[str, str]]

    async def request(self, method: str, target: str, headers: Fields = (), *, end: bool = True) -> None:
        """Send a head; ``end``: there is no body."""

    async def body(self, data: bytes, *, end: bool = False) -> None:
        """Send a part of the body."""

    async def answer(self) -> tuple[int, dict[str, str]]:
        """Wait for the head of the answer.

        Raises:
            EOFError: the connection, or the stream, ended before.
        """

    async def part(self) -> bytes:
        """Some bytes of the answer's body; empty at its regular end.

        Raises:
            EOFError: it was cut off.
        """

    async def abandon(self) -> None:
        """Leave the request: RST of the connection, or of the stream."""


class _Common:
    interim: list[int]
    trailers: list[tuple[str, str]]

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.interim = []
        self.trailers = []


class Http1(_Common):
    """HTTP/1.1 on a connection of its own."""

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
                raise EOFError(f"no answer but {event}")

    async def part(self) -> bytes:
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.trailers = [(n.decode(), v.decode("latin-1")) for n, v in event.headers]
            return b""
        raise EOFError(f"no body but {event}")

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
                if "closed connection" in str(error):  # in mid-message, as h11 words it
                    raise EOFError(str(error)) from error
                raise
            if event is not h11.NEED_DATA:
                return event
            try:
                self._h11.receive_data(await self.stream.receive_some())
            except trio.BrokenResourceError as error:
                raise EOFError("the connection was reset") from error


class Http2(_Common):
    """HTTP/2 with prior knowledge; one stream at a time."""

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
                raise EOFError(f"no answer but {event}")

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
                raise EOFError(f"no body but {event}")

    async def abandon(self) -> None:
        self.h2.reset_stream(self.id, 8)
        await self.flush()

    def room(self) -> int:
        """Bytes of a body that the server takes at the moment."""
        return min(self.h2.local_flow_control_window(self.id), self.h2.max_outbound_frame_size)

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def _event(self) -> Any:
        """The next event of the request's stream, or of what ends the connection."""
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
    """A connection that speaks ``protocol``."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Http1(stream) if protocol == "HTTP/1.1" else Http2(stream)


async def rest(channel: Channel) -> bytes:
    """The whole body that is still to come."""
    body = b""
    while part := await channel.part():
        body += part
    return body


async def ask(
    protocol: str, port: int, method: str, target: str, headers: Fields = (), body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, to the end of its answer."""
    with trio.fail_after(10):
        async with opened(protocol, port) as channel:
            fields = [*headers, *([("content-length", str(len(body)))] if body is not None else [])]
            await channel.request(method, target, fields, end=body is None)
            if body is not None:
                await channel.body(body, end=True)
            status, received = await channel.answer()
            return status, received, await rest(channel)
