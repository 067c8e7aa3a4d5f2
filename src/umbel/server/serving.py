"""The embedded server: ``serve`` runs one application in one process until a signal or a trigger stops it.

Start: bind the sockets, start the application (lifespan), start the server state, accept. Stop, in reverse: drain
(``shutdown.py``), stop the server state, stop the application, close the sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from trio_util import wait_any

from ..core.diagnostics.request_console import shown_requests
from ..core.events import NULL, Recorder
from ..net.exception_groups import raise_unwrapped
from .handler import handler_of
from .lifespan import running_lifespan
from .limits.server_limits import Limits
from .process.listen import Listener, accept_from, listening
from .process.process_signals import handle_signals, in_main_thread
from .shutdown import drain, leave
from .state import ServerState


def _ignore(_: ServerState) -> None:
    """The default of ``on_state``."""


async def serve(
    app: Any,
    config: Config,
    *,
    limits: Limits | None = None,
    server: ServerState | None = None,
    recorder: Recorder = NULL,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    on_state: Callable[[ServerState], object] = _ignore,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until ``shutdown_trigger`` returns or ``config.max_requests`` have begun, then stop.

    Args:
        app: an ASGI application, or an ``InboundApplication``.
        config: Hypercorn's settings, with the addresses to bind.
        limits: the limits on clients. Default: ``app.limits``, else the default limits.
        server: a server state that the caller has made from the same ``app`` and ``config``, to observe or control the
            server. ``limits`` and ``recorder`` have no effect then, and ``max_requests`` only sets
            ``server.exhausted``: the caller must stop the server.
        recorder: takes the server's records (crashes, rejected requests) if the application has no recorder.
        shutdown_trigger: an async function whose return stops the server. Default: a signal (``process_signals.py``);
            outside of the main thread, where no signal can be handled, only a cancel stops the server.
        on_state: called with the server state before the application starts.
        task_status: gets the addresses, such as ``"http://127.0.0.1:8000"``, when the server answers requests.

    The sockets are bound before the application starts. A stop is graceful (``shutdown.py``): ``drain_delay`` seconds
    in which the server still accepts, ``config.graceful_timeout`` seconds for the requests in flight, then the
    application's shutdown. A second signal, or a cancel of this call, cancels the requests in flight and the
    application at once, without its shutdown. After a second signal the call returns; a cancel is raised again.

    Raises:
        RuntimeError: the caller does not run under trio.
        OSError: an address cannot be bound, or a certificate or key cannot be loaded.
        hypercorn.utils.LifespanFailureError: the application failed to start or to stop, or its lifespan raised while
            it was served.
        hypercorn.utils.LifespanTimeoutError: the start or the shutdown of the application took too long.

    A single exception is never wrapped in a group.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("the server needs trio; call serve from trio.run, or from a task of a trio program")
    try:
        with listening(config) as listeners:
            own = server if server is not None else ServerState(app, config, limits, recorder, handle=handler_of(app))
            on_state(own)
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
    """Accept and serve connections until one of ``ends`` returns, then drain.

    Each nursery can be cancelled alone. ``accepting`` ends before the drain, ``connections`` at the end of the drain,
    and ``background`` last, because each connection needs it.
    """
    async with trio.open_nursery() as background:
        await background.start(server.run)
        if (console := shown_requests()) is not None:
            background.start_soon(console.run)
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
    """Yield a function that waits for the caller's trigger or a first signal. A second signal cancels the block."""
    stop = trio.Event()

    async def wait_for_given() -> None:
        if given is not None:
            await given()

    if given is not None or not in_main_thread():
        # A caller with a trigger handles signals itself. Outside of the main thread nobody can.
        yield wait_for_given if given is not None else stop.wait
        return

    async with trio.open_nursery() as nursery:
        await nursery.start(handle_signals, server, stop, nursery.cancel_scope)
        yield stop.wait
        nursery.cancel_scope.cancel(reason="the server has stopped")
