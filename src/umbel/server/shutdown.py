"""Graceful shutdown: the server reports not ready, stops accepting, lets its connections end, and cuts the rest.

Theory
------
A stopping server must not lose a request that a client or a load balancer has already sent. It cannot know of such a
request, so it gives each step of the shutdown a time. The steps are phases (``phase.py``), which only advance::

    SERVING --leave--> LEAVING --drain--> DRAINING --cut_at--> CUT
                       drain_delay        graceful_timeout     cancel_timeout

- *LEAVING* (``leave``): readiness probes fail, if the application has ``begin_drain``, and everything else goes on:
  load balancers that poll readiness need ``drain_delay`` seconds to send their requests elsewhere.
- The caller then stops accepting. This comes before ``drain``: ``drain`` waits for a number of connections that may
  only fall.
- *DRAINING* (``ServerState.begin_draining``): keep-alive is off. HTTP/1.1 connections end with their next response,
  HTTP/2 connections send GOAWAY, WebSockets close with 1001. An idle connection stays for ``drain_idle`` seconds, for
  a request that was sent before the client saw the end. A request in flight has until ``cut_at``, which is
  ``graceful_timeout`` after the begin.
- *CUT*: ``cut()`` cancels the connections that are left. A request without a response gets 503, one with a begun
  response is cut off. Handlers have ``cancel_timeout`` for their cleanup. Every write deadline is at most ``cut_at`` +
  ``cancel_timeout``, so a client that does not read cannot delay the end. A handler that takes longer is logged
  (``drain.stuck``) and not waited for here: the nursery of the connections still waits for it. The phase is reached
  only if connections are left at ``cut_at``.

**Reserved connections** (``limits/probe_reserve.py``) are not in the number of connections that ``drain`` waits for. At
the begin of DRAINING those on which no probe awaits the begin of its response end at once, and the others within
``RESERVED_S``.

**Invariants.** The phase never goes back (``max``). ``cut_at`` is set before connections are notified, because they
compute deadlines from it. Connections that begin during a drain see the phase themselves and need no notice.

**Cancellation.** A cancel that comes from outside during ``leave`` or the first wait of ``drain`` ends the graceful
part at once, because its scope encloses the connections too. (Under the ``hypercorn`` command a scope of 0 s around
``leave`` alone skips ``drain_delay``.) After ``cut()`` the wait is shielded for ``cancel_timeout``, because ``cut`` may
cancel the nursery in which ``drain`` itself runs (under the ``hypercorn`` command it does), and a late cleanup must
still be logged.
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
    """Enter ``LEAVING``, call ``app.begin_drain()`` if there is one, and wait for ``drain_delay`` seconds.

    The server still accepts in that time.
    """
    server.phase.value = max(server.phase.value, Phase.LEAVING)
    if (begin_drain := getattr(server.app, "begin_drain", None)) is not None:
        begin_drain()
    await trio.sleep(server.limits.drain_delay)


async def drain(server: ServerState, cut: Callable[[], None]) -> None:
    """Have every connection end, and return when the last one has ended, or ``cancel_timeout`` after the cut.

    ``cut()`` must cancel the connections. It is called if any are left after ``graceful_timeout`` seconds. The caller
    must have stopped accepting.
    """
    server.begin_draining(trio.current_time() + server.config.graceful_timeout)
    with trio.move_on_at(server.cut_at) as scope:
        await server.connections.wait_value(0)
    if not scope.cancelled_caught:
        return
    server.phase.value = Phase.CUT
    cut()
    # Shielded: the cut may have cancelled this task too.
    with trio.move_on_after(server.limits.cancel_timeout, shield=True) as scope:
        await server.connections.wait_value(0)
    if scope.cancelled_caught:
        late, count = server.limits.cancel_timeout, server.connections.value
        server.note(
            "drain.stuck",
            f"connections still open {late:g} s after they were cut: {count}; "
            "the cleanup of their handlers takes longer than cancel_timeout",
        )
