"""Reuse of idle connections: how long a connection may have been idle to carry a request that must not be repeated.

A server may close an idle connection at any time, also while a request is on its way. The client then sees a reset and
cannot know whether the request was read. A GET is sent again; a POST fails (RFC 9112 section 9.3.1). So a request that
must not be repeated takes a kept connection only while the server is very unlikely to close it. Otherwise it gets a new
connection.
"""

from __future__ import annotations

IDLE_MAX = 4.0
"""Upper bound in seconds: the shortest idle timeout of common servers is 5 s (Node.js)."""
IDLE_UNKNOWN_MAX = 0.5
"""Bound in seconds while nothing is known about the server's idle timeout."""
HINT_MARGIN = 1.0
"""Seconds subtracted from the Keep-Alive hint, for the transfer of the request and the precision of the server's
timer."""
OBSERVED_SHARE = 0.8
"""Share of the shortest observed idle time up to which a connection is reused."""
OBSERVED_SECONDS = 60.0
"""Seconds for which an observation is kept in any case. A server that restarts closes connections of any idle time,
which says nothing about its idle timeout. So an older observation is dropped when a connection was idle for longer and
the server had not closed it."""


def idle_max(hint: float | None, shortest: float | None) -> float:
    """The idle time in seconds up to which a kept connection may carry a request that must not be repeated.

    A negative result means that no kept connection may.

    Args:
        hint: ``timeout`` of the server's last Keep-Alive field in seconds; None without one.
        shortest: shortest idle time in seconds at which this server has closed a connection; None without such an
            observation, or after it was dropped (``OBSERVED_SECONDS``).
    """
    if hint is None and shortest is None:
        return IDLE_UNKNOWN_MAX
    limit = IDLE_MAX
    if hint is not None:
        limit = min(limit, hint - HINT_MARGIN)
    if shortest is not None:
        limit = min(limit, OBSERVED_SHARE * shortest)
    return limit
