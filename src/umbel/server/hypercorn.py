"""Umbel's server instead of Hypercorn's own connections, under the ``hypercorn`` command.

One name of Hypercorn is replaced, ``TCPServer.run``: ``serve_socket.py`` serves what Hypercorn accepts, as under
``umbel serve``. Everything else (its command, its workers, their sockets and signals, the lifespan) stays Hypercorn's.
``UMBEL_GUARD=off`` in the environment leaves all of Hypercorn as it is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from .handler import handler_of
from .process.loop_watchdog import EVENT, HANG_TIMEOUT, watch_loop
from .serve_socket import serve_socket
from .shutdown import drain, leave
from .state import ServerState

_stock_run = TCPServer.run
_mistakes_of: Callable[[Mapping[str, Any]], list[str]]
"""Judges Hypercorn's settings. Set by ``install``: it loads pydantic, and no connection is to wait for that."""


def install() -> None:
    """Serve what Hypercorn accepts in this process, unless ``UMBEL_GUARD=off``. May be called more than once."""
    if os.environ.get("UMBEL_GUARD", "").lower() != "off":
        global _mistakes_of
        from ..config.hypercorn_toml.settings import mistakes as _mistakes_of

        TCPServer.run = _run  # type: ignore[method-assign]  # the one name that is replaced


def installed() -> bool:
    """Whether ``install`` was called, and not in vain."""
    return TCPServer.run is _run


class _Worker:
    """A worker of Hypercorn's: the state that its connections share, and what runs beside them."""

    def __init__(self, server: TCPServer, app: ASGIWrapper) -> None:
        self.server = ServerState(app.app, server.config, handle=handler_of(app.app))
        self.server.lifespan_state = server.state
        self.tls = server.config.create_ssl_context()
        """For connections that Hypercorn has accepted to speak TLS with."""
        self.ready = trio.Event()
        self._context = server.context

    async def accompany(self, connections: trio.Nursery) -> None:
        """Run beside the connections in Hypercorn's nursery, and wind them down when Hypercorn stops accepting."""
        for mistake in _mistakes_of(vars(self.server.config)):
            self.server.note("hypercorn.setting", f"of Hypercorn's settings, {mistake}")
        async with trio.open_nursery() as nursery:
            await nursery.start(self.server.run)
            self.ready.set()
            nursery.start_soon(self._stop_when_exhausted)
            hang_timeout = getattr(self.server.app, "hang_timeout", HANG_TIMEOUT)
            nursery.start_soon(watch_loop, hang_timeout, partial(self.server.note, EVENT))
            await self._context.terminated.wait()
            with trio.move_on_after(0):
                await leave(self.server)  # nothing is accepted any more: there is no delay to wait for
            await drain(
                self.server,
                lambda: connections.cancel_scope.cancel(reason="the time for requests in flight is over"),
            )
            nursery.cancel_scope.cancel(reason="the last connection has gone")

    async def _stop_when_exhausted(self) -> None:
        await self.server.exhausted.wait()
        await self._context.terminate.set()


_workers: WeakKeyDictionary[WorkerContext, _Worker] = WeakKeyDictionary()


async def _run(self: TCPServer) -> None:
    """Serve a connection that Hypercorn has accepted: the replacement of ``TCPServer.run``."""
    if not isinstance(self.app, ASGIWrapper):
        await _stock_run(self)  # a WSGI application, which runs in threads
        return
    worker = _workers.get(self.context)
    if worker is None:
        worker = _workers[self.context] = _Worker(self, self.app)
        # The nursery that Hypercorn has for its connections: it waits for this one too.
        connections = trio.lowlevel.current_task().parent_nursery
        assert connections is not None, "a connection is served in a task of its own"
        connections.start_soon(worker.accompany, connections)
    await worker.ready.wait()
    sock, tls = _taken_over(self.stream)
    await serve_socket(worker.server, sock, worker.tls if tls else None)


def _taken_over(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> tuple[socket.socket, bool]:
    """The socket of a stream that has not been read yet, and whether it is to speak TLS. The stream is of no use then.

    Hypercorn has not begun its TLS handshake at this point, so TLS is handled here from its first byte.
    """
    tls = isinstance(stream, trio.SSLStream)
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    sock = socket.socket(fileno=transport.socket.detach())
    sock.setblocking(False)
    return sock, tls
