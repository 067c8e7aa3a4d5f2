"""Graceful shutdown: not ready, then no new connections, then no idle ones, then none.

It holds no socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .phase import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import ServerState

__all__ = ["Phase", "drain", "leave"]


async def leave(server: ServerState) -> None:
    """Report not ready, and go on accepting for ``drain_delay``, the time that load balancers need to notice."""
    server.phase.value = max(server.phase.value, Phase.LEAVING)
    if (begin_drain := getattr(server.app, "begin_drain", None)) is not None:
        begin_drain()
    await trio.sleep(server.limits.drain_delay)


async def drain(server: ServerState, cut: Callable[[], None]) -> None:
    """End every connection: with its next response, after ``drain_idle`` without a request, or at ``graceful_timeout``.

    Then ``cut()`` cancels what is left, which has ``cancel_timeout`` for its cleanup; what takes longer is logged.
    Returns as soon as the last connection has gone. Nothing must be accepted meanwhile.
    """
    server.begin_draining(trio.current_time() + server.config.graceful_timeout)
    with trio.move_on_at(server.cut_at) as scope:
        await server.connections.wait_value(0)
    if not scope.cancelled_caught:
        return
    server.phase.value = Phase.CUT
    cut()
    # What was cut may be what this runs in.
    with trio.move_on_after(server.limits.cancel_timeout, shield=True) as scope:
        await server.connections.wait_value(0)
    if scope.cancelled_caught:
        late, count = server.limits.cancel_timeout, server.connections.value
        server.note("drain.stuck", f"connections that are still cleaning up {late:g} s after they were cut: {count}")
