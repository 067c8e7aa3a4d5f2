"""The guard: Hypercorn's HTTP/2 and WebSocket behind checks and bounds of ours, and our server in Hypercorn's own.

``connection.py`` hands connections over that are not HTTP/1.1. ``Umbel`` installs the guard when it is made, so that
the ``hypercorn`` command serves connections as ``umbel serve`` does; ``UMBEL_GUARD=off`` leaves Hypercorn as it is.
It replaces private names of Hypercorn 0.18, and a test per name fails when its code changes upstream.
"""

from __future__ import annotations

import os
from functools import partial
from weakref import WeakKeyDictionary

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from .connection import serve_connection
from .drain import drain, leave
from .h1websocket import serve_upgrade
from .h2 import Http2
from .loopwatch import EVENT, HANG_TIMEOUT, watch_loop
from .peer import Peer
from .reserve import Seat
from .service import Service
from .settings import mistakes
from .wire import AnyStream

_unguarded = TCPServer.run


async def serve_hypercorn(
    service: Service, stream: AnyStream, peer: Peer, alpn: str, received: bytes, seat: Seat | None = None
) -> None:
    """Serve a connection that speaks HTTP/2 (``alpn`` "h2") or was upgraded to WebSocket; returns when it is over.

    ``received`` has been read of it already. It closes nothing, and what is wrong with the connection's own code comes
    out of it as an exception; what an application raises does not.
    """
    if alpn == "h2":
        await Http2(service, stream, peer, seat).run(received)
    else:
        await serve_upgrade(service, stream, peer, received)


def install() -> None:
    """Put the guard on, once per process, unless ``UMBEL_GUARD=off``."""
    if os.environ.get("UMBEL_GUARD", "").lower() != "off":
        TCPServer.run = _guarded_run  # type: ignore[method-assign]  # that is what a guard is


def installed() -> bool:
    """Whether the guard is on."""
    return TCPServer.run is _guarded_run


class _Worker:
    """A worker of Hypercorn's: the service of its connections, and what runs beside them."""

    def __init__(self, server: TCPServer, app: ASGIWrapper) -> None:
        self.service = Service(app.app, server.config)
        self.service.state = server.state
        self.ready = trio.Event()
        self._context = server.context

    async def accompany(self, connections: trio.Nursery) -> None:
        """Run beside the connections in Hypercorn's nursery, and wind them down when Hypercorn stops accepting."""
        for mistake in mistakes(self.service.config):
            self.service.note("hypercorn.setting", f"of Hypercorn's settings, {mistake}")
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            self.ready.set()
            nursery.start_soon(self._stop_when_exhausted)
            hang_timeout = getattr(self.service.app, "hang_timeout", HANG_TIMEOUT)
            nursery.start_soon(watch_loop, hang_timeout, partial(self.service.note, EVENT))
            await self._context.terminated.wait()
            with trio.move_on_after(0):
                await leave(self.service)  # nothing is accepted any more: there is no delay to wait for
            await drain(
                self.service,
                lambda: connections.cancel_scope.cancel(reason="the time for requests in flight is over"),
            )
            nursery.cancel_scope.cancel(reason="the last connection has gone")

    async def _stop_when_exhausted(self) -> None:
        await self.service.exhausted.wait()
        await self._context.terminate.set()


_workers: WeakKeyDictionary[WorkerContext, _Worker] = WeakKeyDictionary()


async def _guarded_run(self: TCPServer) -> None:
    """Serve a connection that Hypercorn has accepted: ours in the place of ``TCPServer.run``."""
    if not isinstance(self.app, ASGIWrapper):
        await _unguarded(self)  # a WSGI application, which runs in threads
        return
    worker = _workers.get(self.context)
    if worker is None:
        worker = _workers[self.context] = _Worker(self, self.app)
        # The nursery that Hypercorn has for its connections: it waits for this one too.
        connections = trio.lowlevel.current_task().parent_nursery
        assert connections is not None, "a connection is served in a task of its own"
        connections.start_soon(worker.accompany, connections)
    await worker.ready.wait()
    await serve_connection(worker.service, self.stream)
