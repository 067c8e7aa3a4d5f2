"""HTTP/1.1 connections to the server over socket pairs, for the virtual clock, with either socket reader.

    async with served(app) as server, server.connected() as client: ...

The driver ``epoll`` is the socket reader of Linux, ``wait`` the one of systems without epoll.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypercorn.config import Config

from tests.support.logs.records import Records
from tests.support.server.serving import RawClient
from umbel.net.epoll import EpollReader, WaitReader
from umbel.server import state as server_state
from umbel.server.handler import handler_of
from umbel.server.limits.server_limits import Limits
from umbel.server.serve_socket import serve_socket
from umbel.server.state import ServerState

DRIVERS = pytest.mark.parametrize("driver", ["epoll", "wait"])
GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: a\r\n"


class App:
    """An ASGI application with a recorder, made of one function of ``scope, receive, send``."""

    def __init__(self, serve: Callable[[Any, Any, Any], Awaitable[object]]) -> None:
        self._serve = serve
        self.recorder = Records()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._serve(scope, receive, send)


async def answer(send: Any, body: bytes = b"hello", status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send)


class _Addressed(socket.socket):
    """An end of a socket pair that reports itself as a TCP connection from ``client``."""

    def __init__(self, end: socket.socket, client: tuple[str, int]) -> None:
        super().__init__(end.family, end.type, end.proto, fileno=end.detach())
        self._client = client

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return self._client

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8000


class Server:
    """A running ``ServerState``, and connections to it."""

    def __init__(self, state: ServerState, nursery: trio.Nursery, driver: str) -> None:
        self.state = state
        self.nursery = nursery
        self._driver = driver
        self.socket: socket.socket
        """The server's end of the last connection."""

    @asynccontextmanager
    async def connected(self, client: tuple[str, int] | None = None) -> AsyncIterator[RawClient]:
        """Open a connection to the server. ``client``: the peer address that the server sees; None: a Unix socket."""
        ours, theirs = socket.socketpair()
        if client is not None:
            theirs = _Addressed(theirs, client)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        theirs.setblocking(False)
        self.socket = theirs
        self.nursery.start_soon(serve_socket, self.state, theirs, None)
        async with stream:
            yield RawClient(stream)


@asynccontextmanager
async def served(
    app: Any, driver: str = "epoll", limits: Limits | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """Run a server of ``app`` within the block.

    After the block all connections must end by themselves within a minute, and no request may be in flight.
    ``settings`` are Hypercorn's; with None a key has its default.
    """
    config = Config()
    for name, value in {"keep_alive_timeout": 15.0, **settings}.items():
        if value is not None:
            setattr(config, name, value)
    state = ServerState(app, config, limits, handle=handler_of(app))
    async with trio.open_nursery() as nursery:
        with patch.object(server_state, "new_reader", EpollReader if driver == "epoll" else WaitReader):
            await nursery.start(state.run)
        yield Server(state, nursery, driver)
        with trio.fail_after(60):
            await state.connections.wait_value(0)
        await trio.testing.wait_all_tasks_blocked()  # ``connections`` does not count those above the limit.
        assert state.in_flight == state.streams == 0
        assert not state.on_drain
        assert not state.open
        nursery.cancel_scope.cancel(reason="the test is over")
