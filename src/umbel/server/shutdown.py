"""How a server stops: not ready, then no new connections, then no idle ones, then none.

It holds no socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .phase import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import Service

__all__ = ["Phase", "drain", "leave"]


async def leave(service: Service) -> None:
    """Not ready any more, but still accepting: the time that load balancers need to notice (``drain_delay``)."""
    service.phase.value = max(service.phase.value, Phase.LEAVING)
    if (tell := getattr(service.app, "begin_drain", None)) is not None:
        tell()
    await trio.sleep(service.limits.drain_delay)


async def drain(service: Service, cut: Callable[[], None]) -> None:
    """End every connection: with its next answer, after ``drain_idle`` without a request, or at ``graceful_timeout``.

    Then ``cut()`` cancels what is left, which has ``cancel_timeout`` for its cleanup; what takes longer is logged.
    Returns as soon as the last connection has gone. Nothing must be accepted meanwhile.
    """
    service.begin_draining(trio.current_time() + service.config.graceful_timeout)
    with trio.move_on_at(service.cut_at) as scope:
        await service.connections.wait_value(0)
    if not scope.cancelled_caught:
        return
    service.phase.value = Phase.CUT
    cut()
    # What was cut may be what this runs in.
    with trio.move_on_after(service.limits.cancel_timeout, shield=True) as scope:
        await service.connections.wait_value(0)
    if scope.cancelled_caught:
        late, count = service.limits.cancel_timeout, service.connections.value
        service.note("drain.stuck", f"connections that are still cleaning up {late:g} s after they were cut: {count}")
