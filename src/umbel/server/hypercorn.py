"""Umbel's server under the ``hypercorn`` command.

``install`` replaces one name of Hypercorn, ``TCPServer.run``. Hypercorn still runs its command, its workers with their
sockets and signals, and the lifespan, and accepts each connection. The replacement serves the accepted connection by
``serve_socket``, as under ``umbel serve``. With ``UMBEL_GUARD=off`` in the environment nothing is replaced.
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
"""Checks Hypercorn's settings. ``install`` imports it early: the import of pydantic must not delay a connection."""


def install() -> None:
    """Have Hypercorn serve the connections of this process by Umbel's server, unless ``UMBEL_GUARD=off`` is set.

    To be called before Hypercorn serves, such as in the module of the application. A second call changes nothing.
    """
    if os.environ.get("UMBEL_GUARD", "").lower() != "off":
        global _mistakes_of
        from ..config.hypercorn_toml.settings import mistakes as _mistakes_of

        TCPServer.run = _run  # type: ignore[method-assign]  # the one name that is replaced


def installed() -> bool:
    """Whether ``install`` has replaced ``TCPServer.run`` in this process."""
    return TCPServer.run is _run


class _Worker:
    """One worker of Hypercorn: the server state of its connections, and the tasks beside them."""

    def __init__(self, server: TCPServer, app: ASGIWrapper) -> None:
        self.server = ServerState(app.app, server.config, handle=handler_of(app.app))
        self.server.lifespan_state = server.state
        self.tls = server.config.create_ssl_context()
        """For the connections of Hypercorn's TLS listeners."""
        self.ready = trio.Event()
        """Set when connections can be served."""
        self._context = server.context

    async def accompany(self, connections: trio.Nursery) -> None:
        """Run the server state and the watchdog; when Hypercorn stops accepting, drain the connections.

        ``connections``: Hypercorn's nursery for connections, in which this runs too. A cut cancels it.
        """
        for mistake in _mistakes_of(vars(self.server.config)):
            self.server.note("hypercorn.setting", f"Hypercorn's settings: {mistake}")
        workers, limiters = self.server.config.workers, getattr(self.server.app, "machine_limiters", tuple)
        names = ", ".join(each.name for each in limiters())
        if workers > 1 and names:
            text = f"each of the {workers} workers counts by itself for the limits {names}"
            self.server.note("hypercorn.limits", f"{text}; umbel serve -w {workers} counts for all of them together")
        async with trio.open_nursery() as nursery:
            await nursery.start(self.server.run)
            self.ready.set()
            nursery.start_soon(self._stop_when_exhausted)
            hang_timeout = getattr(self.server.app, "hang_timeout", HANG_TIMEOUT)
            nursery.start_soon(watch_loop, hang_timeout, partial(self.server.note, EVENT))
            await self._context.terminated.wait()
            with trio.move_on_after(0):
                await leave(self.server)  # Reports not ready. Hypercorn accepts no more, so drain_delay has no use.
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
    """Serve a connection that Hypercorn has accepted. The replacement of ``TCPServer.run``."""
    if not isinstance(self.app, ASGIWrapper):
        await _stock_run(self)  # A WSGI application, which Hypercorn runs in threads.
        return
    worker = _workers.get(self.context)
    if worker is None:
        worker = _workers[self.context] = _Worker(self, self.app)
        # This task's nursery is Hypercorn's for all connections, so Hypercorn waits for accompany too.
        connections = trio.lowlevel.current_task().parent_nursery
        assert connections is not None, "a connection is served in a task of its own"
        connections.start_soon(worker.accompany, connections)
    await worker.ready.wait()
    sock, tls = _taken_over(self.stream)
    await serve_socket(worker.server, sock, worker.tls if tls else None)


def _taken_over(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> tuple[socket.socket, bool]:
    """Detach the socket of an unread stream; also return whether the connection uses TLS.

    ``stream`` cannot be used afterwards. Hypercorn has not begun the TLS handshake yet, so no byte of it is lost.
    """
    tls = isinstance(stream, trio.SSLStream)
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    sock = socket.socket(fileno=transport.socket.detach())
    sock.setblocking(False)
    return sock, tls
