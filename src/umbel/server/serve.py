"""The embedded server: one application, one process, until a signal or a trigger says stop.

Used by ``app.run()``, ``umbel serve``, ``umbel demo`` and any trio program. It owns the listening sockets from the
moment they are bound; how a connection is served is Hypercorn's affair.
"""

from __future__ import annotations

import signal
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app

from .guard import WRITE_TIMEOUT

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve(
    app: Any,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until ``shutdown_trigger`` returns; without one, until SIGINT or SIGTERM.

    Stopping is graceful: no new connections, ``config.graceful_timeout`` seconds for what is in flight, then the
    lifespan's shutdown. A second signal cuts what is left. Cancelled, it cuts at once.

    The sockets are bound before anything of the application starts, and ``task_status`` gets their addresses
    (``"http://127.0.0.1:8000"``) when it is ready to answer.

    Raises:
        OSError: an address cannot be bound. A single exception is never wrapped in a group.
        hypercorn.utils.LifespanFailureError: the application failed to start, to live on or to stop.
    """
    watched = _Watched(app)
    sockets = _bind(config)
    failure: BaseException | None = None
    try:
        try:
            async with _stop_trigger(shutdown_trigger) as trigger:
                await worker_serve(
                    wrap_app(watched, config.wsgi_max_body_size, "asgi"),
                    config,
                    sockets=sockets,
                    shutdown_trigger=trigger,
                    task_status=_Announcer(watched, task_status),
                )
        finally:
            for sock in (*sockets.secure_sockets, *sockets.insecure_sockets, *sockets.quic_sockets):
                sock.close()
    except BaseExceptionGroup as group:
        failure = _innermost(group)
    if failure is not None:
        # Raised out here, so that it keeps the cause that it has.
        raise failure


def _bind(config: Config) -> Sockets:
    try:
        sockets = config.create_sockets()
    except OSError as error:
        _close_leftovers(error)
        raise OSError(error.errno, f"cannot listen on {' and '.join(config.bind)}: {error.strerror}") from error
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
        sock.listen(config.backlog)
    return sockets


def _close_leftovers(error: OSError) -> None:
    """Close what Hypercorn had opened before it failed: it leaves that to the garbage collector, in its own frames."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            for sock in value if isinstance(value, list) else (value,):
                if isinstance(sock, socket.socket):
                    sock.close()


class _Watched:
    """The application, and whether it said that it cannot start.

    Hypercorn announces its addresses also where the startup has just failed; whoever waits for them must not believe
    that something serves there.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failed = False
        self.write_timeout: float = getattr(app, "write_timeout", WRITE_TIMEOUT)

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def watch(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.failed = True
            await send(message)

        await self._app(scope, receive, watch)


class _Announcer(trio.TaskStatus[list[str]]):
    """Passes the addresses on, if there is something behind them."""

    def __init__(self, watched: _Watched, to: trio.TaskStatus[list[str]]) -> None:
        self._watched = watched
        self._to = to

    def started(self, value: list[str] | None = None) -> None:
        if not self._watched.failed:
            self._to.started(value or [])


@asynccontextmanager
async def _stop_trigger(
    given: Callable[[], Awaitable[object]] | None,
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """What ends the serving: the caller's trigger, or a first signal. A second one cancels the block."""
    stop = trio.Event()

    async def wait_for_given() -> None:
        if given is not None:
            await given()

    if given is not None or threading.current_thread() is not threading.main_thread():
        # Signals belong to the main thread, and to whoever gives no trigger of their own.
        yield wait_for_given if given is not None else stop.wait
        return

    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, stop, nursery.cancel_scope)
        yield stop.wait
        nursery.cancel_scope.cancel(reason="the server has stopped")


async def _listen(
    stop: trio.Event, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            if stop.is_set():
                scope.cancel(reason=f"a second signal, {signal.Signals(number).name}")
                return
            stop.set()


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of nested groups of one, so that callers can catch it by its type; else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
