"""A bridge from HTTP/1.1 to HTTP/2: the cases' client knows HTTP/1.1 only, and the gateway must get RFC 8441.

Each WebSocket connection of HTTP/1.1 becomes one extended CONNECT on an HTTP/2 connection of its own. Bytes pass
unchanged in both directions, under HTTP/2's flow control.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio
from wsproto.utilities import generate_accept_token

from tests.support.upstream.raw_server import Peer, raw_server

_HANDSHAKE = ("sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol", "origin")
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class _Bridged:
    """One WebSocket: ``peer`` is the HTTP/1.1 client, ``stream`` the HTTP/2 connection to the gateway."""

    def __init__(self, peer: Peer, stream: trio.SocketStream) -> None:
        self._peer, self._stream = peer, stream
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._sending = trio.Lock()
        self._changed = trio.Event()
        """Replaced and set whenever the gateway has sent something."""
        self._id = 0
        self._head: list[tuple[str, str]] | None = None
        self._ended = False

    async def run(self) -> None:
        head = (await self._peer.read_head()).decode("latin-1").split("\r\n")
        fields = dict(_field(line) for line in head[1:] if line)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**24)
        await self._flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._down, nursery)
            while not self._h2.remote_settings.enable_connect_protocol:
                await self._change()
            self._id = self._h2.get_next_available_stream_id()
            pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a.test")]
            kept = [(name, fields[name]) for name in _HANDSHAKE if name in fields]
            self._h2.send_headers(self._id, [*pseudo, (":path", head[0].split(" ")[1]), *kept])
            await self._flush()
            while self._head is None:
                await self._change()
            await self._accept(fields["sec-websocket-key"], self._head)
            await self._up()

    async def _accept(self, key: str, head: list[tuple[str, str]]) -> None:
        assert head[0] == (":status", "200"), head
        proof = generate_accept_token(key.encode()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {proof}", *(f"{name}: {value}" for name, value in head[1:])]
        await self._peer.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._head = []

    async def _up(self) -> None:
        """Pass the client's bytes on until it ends its sending or the stream has ended."""
        data, self._peer.buffer = self._peer.buffer, b""
        while not self._ended:
            while data and not self._ended:
                size = min(len(data), self._h2.local_flow_control_window(self._id), self._h2.max_outbound_frame_size)
                if not size:
                    await self._change()
                    continue
                self._h2.send_data(self._id, data[:size])
                data = data[size:]
                await self._flush()
            if self._ended:
                return
            try:
                data = await self._peer.stream.receive_some()
            except _BROKEN:
                data = b""
            if not data:
                if not self._ended:
                    self._h2.end_stream(self._id)
                    await self._flush()
                return

    async def _down(self, nursery: trio.Nursery) -> None:
        """Pass the gateway's bytes on until it ends the stream."""
        try:
            while not self._ended and (data := await self._stream.receive_some()):
                for event in self._h2.receive_data(data):
                    await self._take(event)
                await self._flush()
                changed, self._changed = self._changed, trio.Event()
                changed.set()
        except _BROKEN:
            pass  # A side has closed; both are closed below.
        nursery.cancel_scope.cancel(reason="the stream has ended")

    async def _take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._head = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            case h2.events.DataReceived():
                while self._head:
                    await trio.lowlevel.checkpoint()  # The head to the client goes first.
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                await self._peer.send(event.data)
            case h2.events.StreamEnded() | h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self._ended = True

    async def _change(self) -> None:
        await self._changed.wait()

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._h2.data_to_send():
                await self._stream.send_all(data)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


@asynccontextmanager
async def bridge(port: int) -> AsyncIterator[int]:
    """Serve WebSocket connections of HTTP/1.1 within the block, for the gateway at ``port``; yield the port."""

    async def one(peer: Peer) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await _Bridged(peer, stream).run()

    async with raw_server(one) as server:
        yield int(server)
