"""The embedded server: one application, one process, until a signal or a trigger stops it.

It owns the listening sockets from the moment they are bound, and the order in which things start and stop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from trio_util import wait_any

from ..core.events import NULL, Recorder
from ..net.exception_groups import raise_unwrapped
from .handler import handler_of
from .lifespan import running_lifespan
from .limits.server_limits import Limits
from .process.listen import Listener, accept_from, listening
from .process.process_signals import handle_signals, in_main_thread
from .shutdown import drain, leave
from .state import ServerState


async def serve(
    app: Any,
    config: Config,
    *,
    limits: Limits | None = None,
    server: ServerState | None = None,
    recorder: Recorder = NULL,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until ``shutdown_trigger`` returns; without one, until a signal says stop.

    Stopping is graceful (``shutdown.py``): no new connections, ``config.graceful_timeout`` for what is in flight,
    then the lifespan's shutdown. A second signal cuts what is left. Cancelled, it cuts at once. Without a trigger the
    signals of the process have the meanings of ``process_signals.py``.

    ``limits`` are the application's own (``app.limits``) unless given, or the defaults. A caller that wants to
    see or steer the server makes its state itself, of the same application and settings, and passes it as ``server``.
    Then ``limits`` has no effect, and the caller acts when ``max_requests`` are exhausted.

    ``recorder`` takes the server's records (crashes, rejected requests) for an application that has none of its own.

    The sockets are bound before anything of the application starts, and ``task_status`` gets their addresses
    (``"http://127.0.0.1:8000"``) when it is ready to answer.

    Raises:
        RuntimeError: it is not run by trio.
        OSError: an address cannot be bound. A single exception is never wrapped in a group.
        hypercorn.utils.LifespanFailureError: the application failed to start, to live on or to stop.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("the server needs trio; run it with trio.run, or in a task of a program that trio runs")
    try:
        with listening(config) as listeners:
            own = server if server is not None else ServerState(app, config, limits, recorder, handle=handler_of(app))
            async with (
                _stop_trigger(shutdown_trigger, own) as trigger,
                running_lifespan(app, config, own.lifespan_state),
            ):
                ends = [trigger] if server is not None else [trigger, own.exhausted.wait]
                await _serve_listeners(own, listeners, ends, task_status)
    except BaseExceptionGroup as group:
        raise_unwrapped(group)
        raise


async def _serve_listeners(
    server: ServerState,
    listeners: list[Listener],
    ends: Sequence[Callable[[], Awaitable[object]]],
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """Accept and serve until one of ``ends`` returns, then drain."""
    async with trio.open_nursery() as background:
        await background.start(server.run)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                addresses = [listener.address for listener in listeners]
                for listener in listeners:
                    accepting.start_soon(accept_from, listener, server, connections)
                task_status.started(addresses)
                await wait_any(*ends)
                await leave(server)
                accepting.cancel_scope.cancel(reason="the server stops accepting")
            await drain(
                server, partial(connections.cancel_scope.cancel, reason="the time for requests in flight is over")
            )
        background.cancel_scope.cancel(reason="the last connection has gone")


@asynccontextmanager
async def _stop_trigger(
    given: Callable[[], Awaitable[object]] | None, server: ServerState
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """What ends the serving: the caller's trigger, or a first signal. A second one cancels the block."""
    stop = trio.Event()

    async def wait_for_given() -> None:
        if given is not None:
            await given()

    if given is not None or not in_main_thread():
        # Signals belong to the main thread, and to whoever gives no trigger of their own.
        yield wait_for_given if given is not None else stop.wait
        return

    async with trio.open_nursery() as nursery:
        await nursery.start(handle_signals, server, stop, nursery.cancel_scope)
        yield stop.wait
        nursery.cancel_scope.cancel(reason="the server has stopped")
