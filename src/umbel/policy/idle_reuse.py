"""Reuse of idle connections: how long one may have been idle to carry a request that must not be repeated.

A server closes idle connections when it likes, and its close may cross a request on the way. The client then sees a
reset and cannot know whether the request was read. A GET is sent again; a POST fails (RFC 9112 section 9.3.1). So a
request that must not be repeated goes on a kept connection only while the server is very unlikely to close it, and else
on a new one.
"""

from __future__ import annotations

IDLE_MAX = 4.0
"""Seconds at most: the shortest idle timeout of common servers is 5 s (Node's)."""
IDLE_UNKNOWN_MAX = 0.5
"""Seconds while the server's idle timeout is not known."""
HINT_MARGIN = 1.0
"""Seconds allowed for the transfer of a request to the server and for the error of its clock."""
OBSERVED_SHARE = 0.8
"""Share of the shortest observed idle time up to which a connection is reused."""
OBSERVED_SECONDS = 60.0
"""How long an observation counts whatever comes. A server that restarts closes connections after whatever time they
have been idle, which says nothing of its idle timeout. So an older observation is forgotten once a connection was idle
for longer and the server had not closed it."""


def idle_max(hint: float | None, shortest: float | None) -> float:
    """Seconds of idle time up to which a kept connection may carry a request that must not be repeated.

    Args:
        hint: the ``timeout`` of the server's last Keep-Alive field; None without one.
        shortest: the shortest idle time at which this server has closed a connection; None if it has closed none, or
            if that was disproved (``OBSERVED_SECONDS``).
    """
    if hint is None and shortest is None:
        return IDLE_UNKNOWN_MAX
    limit = IDLE_MAX
    if hint is not None:
        limit = min(limit, hint - HINT_MARGIN)
    if shortest is not None:
        limit = min(limit, OBSERVED_SHARE * shortest)
    return limit
