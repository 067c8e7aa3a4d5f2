"""HTTP/2 connections to the server over streams in memory, for the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from hypercorn.config import Config
from trio.testing import memory_stream_pair

from tests.support.logs.records import Records
from tests.support.server.h2_client import H2Client
from umbel.core.events import NULL
from umbel.server.handler import handler_of
from umbel.server.http2.connection import Http2Connection
from umbel.server.limits.server_limits import Limits
from umbel.server.peer import Peer
from umbel.server.state import ServerState

PEER = Peer(("192.0.2.1", 5000), ("192.0.2.2", 80))


@dataclass
class App:
    """An ASGI application with a recorder; ``serve`` is called for each request."""

    serve: Any
    recorder: Records = field(default_factory=Records)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.serve(scope, receive, send)


@dataclass
class Connected:
    """A client's connection, and the objects at the server's end."""

    client: H2Client
    stream: Any
    """The server's end of the connection."""
    state: ServerState
    records: Records
    over: trio.Event
    """Set when the server has ended the connection."""


@asynccontextmanager
async def h2_connected(
    serve: Any, limits: Limits | None = None, *, silent: bool = False, app: Any = None, **settings: Any
) -> AsyncIterator[Connected]:
    """Connect a client to a server of ``app``, or of the ASGI function ``serve``.

    Both prefaces have been exchanged, unless the client is ``silent``. After the block the server must end the
    connection within a minute and have no request in flight.
    """
    records = Records()
    config = Config.from_mapping(include_server_header=False, **settings)
    served, recorder = (App(serve, records), NULL) if app is None else (app, records)
    state = ServerState(served, config, limits, recorder, handle=handler_of(served))
    ours, theirs = memory_stream_pair()
    over = trio.Event()

    async def run() -> None:
        try:
            await Http2Connection(state, ours, PEER).run(b"")
        finally:
            over.set()
            await trio.aclose_forcefully(ours)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        client = H2Client(theirs)
        if not silent:
            nursery.start_soon(client.begin)
            while not client.settled:
                await client.receive()
            await trio.testing.wait_all_tasks_blocked()
        yield Connected(client, ours, state, records, over)
        await trio.aclose_forcefully(theirs)
        with trio.fail_after(60):
            await over.wait()
        assert state.in_flight == state.streams == 0
        assert not (state.open or state.on_drain)


class CancelledServices:
    """Servers of one application, a new one for each connection, for tests that cancel a connection at any step."""

    def __init__(self, serve: Any) -> None:
        self.app = App(self._serve)
        self.made: list[ServerState] = []
        self._inner = serve
        self._running: set[object] = set()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self._running.add(key := object())
        try:
            await self._inner(scope, receive, send)
        finally:
            self._running.discard(key)

    @asynccontextmanager
    async def h2_client(self) -> AsyncIterator[H2Client]:
        """A client of a new server, after the client's preface."""
        self.made.append(ServerState(self.app, Config(), handle=handler_of(self.app)))
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Http2Connection(self.made[-1], ours, PEER).run, b"")
            client = H2Client(theirs)
            await client.begin()
            yield client
            await theirs.aclose()

    def check(self) -> None:
        """Assert that no application task, request or connection is left."""
        assert not self._running
        assert all(state.in_flight == state.streams == state.uploads.taken == 0 for state in self.made)
        assert not any(state.open or state.on_drain for state in self.made)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


async def answer(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            return body
    raise EOFError(message)
