"""An upstream whose pages test what a browser sees through a proxy route. The test's page steers it by its reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio
import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Request,
    TextMessage,
)

from tests.support.upstream.raw_server import Peer, field_value, response

SCRIPT = Path(__file__).with_name("proxied_page.js")
PAGE = b"<!doctype html><title>test</title><link rel=icon href=data:,><script src=/page.js></script>"
PIECE = 1 << 16


class Upstream:
    """The handler of the upstream's connections.

    Each step of ``/events``, ``/upload`` and ``/pieces`` waits for the page's report of the step before.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        """The results that the page has reported, by the name of the check."""
        self.done = trio.Event()
        self.ready_to_drain = trio.Event()
        self.asked: list[str | None] = []
        """The Last-Event-ID of each request for events."""
        self.upload_size = 0
        self._told: dict[str, list[Any]] = {}
        self._news = trio.Condition()

    async def __call__(self, peer: Peer) -> None:
        while head := await peer.read_head():
            target = head.decode("latin-1").split(" ", 2)[1]
            match target.partition("?")[0]:
                case "/page":
                    await peer.send(response(PAGE, b"content-type: text/html"))
                case "/page.js":
                    await peer.send(response(SCRIPT.read_bytes(), b"content-type: text/javascript"))
                case "/report":
                    await self._report(json.loads(await peer.read_exactly(_length(head))))
                    await peer.send(response(b""))
                case "/events":
                    await self._events(peer, head)
                    return
                case "/upload":
                    await self._upload(peer, _length(head))
                case "/pieces":
                    await self._pieces(peer)
                case "/ws":
                    await self._echo(peer, head)
                    return
                case _:
                    await peer.send(response(b"no", status=b"403 Forbidden"))

    async def _report(self, told: dict[str, Any]) -> None:
        what, seen = told["what"], told["seen"]
        self.seen[what] = seen
        async with self._news:
            self._told.setdefault(what, []).append(seen)
            self._news.notify_all()
        if what == "ready to drain":
            self.ready_to_drain.set()
        if what == "draining":
            self.done.set()

    async def _reported(self, what: str, count: int) -> None:
        """Wait until the page has reported ``what`` so many times."""
        async with self._news:
            while len(self._told.get(what, [])) < count:
                await self._news.wait()

    async def _events(self, peer: Peer, head: bytes) -> None:
        """Two events, then the connection breaks off; the client that comes back gets the last one."""
        self.asked.append(field_value(head, "last-event-id"))
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if len(self.asked) > 1:
            await peer.send(_chunk(b"id: 3\ndata: last\n\n"))
            await peer.closed()
            return
        await peer.send(_chunk(b"retry: 50\nid: 1\ndata: first\n\n"))
        await self._reported("event", 1)
        await peer.send(_chunk(b"id: 2\ndata: second\n\n"))
        await self._reported("event", 2)

    async def _upload(self, peer: Peer, size: int) -> None:
        left = size
        while left and (piece := await peer.read_exactly(min(left, PIECE))):
            left -= len(piece)
            if left < 3 * size // 4:
                await self._reported("progress", 1)
        self.upload_size = size - left
        await peer.send(response(b"stored", status=b"201 Created"))

    async def _pieces(self, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            await peer.send(_chunk(b"piece %d" % number))
            await self._reported("piece", number + 1)
        await peer.send(b"0\r\n\r\n")

    async def _echo(self, peer: Peer, head: bytes) -> None:
        """Send each message back; "close CODE" closes with that code. The subprotocol is v1 if it is offered."""
        connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        connection.receive_data(head + peer.buffer)
        while True:
            for event in connection.events():
                match event:
                    case Request():
                        chosen = "v1" if "v1" in event.subprotocols else None
                        await peer.send(connection.send(AcceptConnection(subprotocol=chosen)))
                    case TextMessage(data=text) if text.startswith("close "):
                        await peer.send(connection.send(CloseConnection(int(text[6:]), "of the upstream")))
                    case Message():
                        sent = TextMessage if isinstance(event, TextMessage) else BytesMessage
                        await peer.send(connection.send(sent(event.data, message_finished=event.message_finished)))
                    case Ping():
                        await peer.send(connection.send(event.response()))
                    case CloseConnection():
                        if connection.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                            await peer.send(connection.send(event.response()))
                        return
            if not (data := await peer.stream.receive_some()):
                return
            connection.receive_data(data)


def _length(head: bytes) -> int:
    return int(field_value(head, "content-length") or 0)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
