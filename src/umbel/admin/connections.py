"""The connections of one listening socket of an admin side, served by Umbel's own server within narrow bounds.

At most ``CONNECTIONS_MAX`` are open, and fewer if the process may open few descriptors (``connections_max``). A further
one displaces the oldest one that is not being answered; if all are, the further one is closed. So silent or slow
clients never keep another one out. Each listening socket has bounds of its own: clients of an address do not take the
places of the Unix socket.
"""

from __future__ import annotations

import resource
import socket
from typing import Any

import trio
from hypercorn.config import Config

from ..core.events import Event, Level, LogMessage
from ..core.inbound import InboundApplication
from ..server.limits.server_limits import Limits
from ..server.process.listen import accepted
from ..server.serve_socket import serve_socket
from ..server.state import ServerState
from .site import BODY_BYTES_MAX
from .source import Report

CONNECTIONS_MAX = 64
_CONNECTIONS_MIN = 2
_DESCRIPTORS_PER_CONNECTION = 16
"""An instance has up to three listening sockets, which so take 3/16 of the descriptors that the process may open."""
HEAD_S = 3.0
"""Seconds for the head of a request."""
BODY_S = 2.0
"""Seconds for the body of a request: with its head 5 s."""
WRITE_S = 5.0
IDLE_S = 5.0
"""Seconds for which a connection waits for its next request."""
_ACCEPT_BATCH = 4
"""Connections accepted in one turn of the event loop: a flood must not delay the other tasks of the process."""
_LIMITS = Limits(
    head_timeout=HEAD_S,
    body_timeout=BODY_S,
    min_body_rate=2.0**20,
    write_timeout=WRITE_S,
    # A displaced connection still counts until its task has ended.
    max_connections=4 * CONNECTIONS_MAX,
    max_in_flight=2 * CONNECTIONS_MAX,
    max_uploads=CONNECTIONS_MAX,
    probes=(),
    max_head=8 * 1024,
    max_fields=50,
    max_target=2 * 1024,
    max_body=BODY_BYTES_MAX,
)


def connections_max() -> int:
    """The bound on open connections of one listening socket: ``CONNECTIONS_MAX``, or a share of the descriptors.

    The process needs descriptors for its own work, the master for instance to start workers.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(_CONNECTIONS_MIN, min(CONNECTIONS_MAX, allowed // _DESCRIPTORS_PER_CONNECTION))


async def serve_connections(app: InboundApplication, listener: socket.socket, report: Report) -> None:
    """Accept and serve connections until cancelled. The listening socket stays open.

    Raises:
        OSError: accepting failed for another reason than one connection, or a lack of descriptors or memory.
    """
    connections = _Connections(app, report)
    running = trio.CancelScope()

    async def run_server(*, task_status: trio.TaskStatus[None]) -> None:
        with running:
            await connections.server.run(task_status=task_status)

    async with trio.open_nursery() as background:
        await background.start(run_server)
        # A cancel reaches the connections first: they need the socket reader until they have ended.
        running.shield = True
        try:
            async with trio.open_nursery() as nursery:
                async for sock in accepted(listener, connections.server):
                    nursery.start_soon(connections.serve, sock)
        finally:
            trio.lowlevel.notify_closing(listener)
            running.cancel(reason="the last connection has gone")


class _Connections:
    """The open connections, each in a task of its own."""

    def __init__(self, app: InboundApplication, report: Report) -> None:
        self.server = ServerState(app, _settings(), _LIMITS, _Reporter(report), handle=self._handle)
        self.server.accept_batch = _ACCEPT_BATCH
        self._app = app
        self._max = connections_max()
        self._open: dict[trio.lowlevel.Task, trio.CancelScope] = {}
        """The scope of each connection, by its task."""
        self._displaceable: dict[trio.lowlevel.Task, None] = {}
        """The connections without a request in progress; the first one has waited longest."""

    async def serve(self, sock: socket.socket) -> None:
        """Serve an accepted socket, and close it."""
        if len(self._open) >= self._max and not self._displace():
            sock.close()
            return
        task, scope = trio.lowlevel.current_task(), trio.CancelScope()
        self._open[task] = scope
        self._displaceable[task] = None
        try:
            with scope:
                await serve_socket(self.server, sock, None)
        finally:
            self._open.pop(task, None)
            self._displaceable.pop(task, None)

    def _displace(self) -> bool:
        """End the connection that has waited longest for a request; return False if none waits."""
        oldest = next(iter(self._displaceable), None)
        if oldest is None:
            return False
        del self._displaceable[oldest]
        self._open.pop(oldest).cancel(reason="a newer connection displaces one without a request")
        return True

    async def _handle(self, request: Any) -> None:
        """Have a request answered. HTTP/1.1 answers it on the task of its connection."""
        task = trio.lowlevel.current_task()
        self._displaceable.pop(task, None)
        try:
            await self._app.handle(request)
        finally:
            if task in self._open:
                self._displaceable[task] = None


class _Reporter:
    """A recorder that reports the server's failures, and drops the records of requests: their URLs may hold tokens."""

    takes_attempts = False

    def __init__(self, report: Report) -> None:
        self._report = report

    def record(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, LogMessage) and event.level in _REPORTED:
            self._report(f"admin.{event.event}", f"the server of the admin side: {event.message}")


_REPORTED: frozenset[Level] = frozenset({"warning", "error"})


def _settings() -> Config:
    settings = Config()
    settings.alpn_protocols = ["http/1.1"]
    settings.include_server_header = False
    settings.keep_alive_timeout = IDLE_S
    return settings
