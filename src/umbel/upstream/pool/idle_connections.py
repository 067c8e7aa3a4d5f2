"""Idle connections of a pool: last in, first out for each origin; first in, first out for expiry.

Every operation is O(1), awaits nothing and closes nothing. The idle time at which an origin has closed connections is
remembered, for ``policy.idle_reuse``.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ...net.bounded_cache import BoundedCache
from ...policy.idle_reuse import OBSERVED_SECONDS, OBSERVED_SHARE, idle_max
from ..replicas.origin import Origin
from .connection import Connection

ORIGINS_MAX = 1024
"""Origins whose idle times are remembered; one more takes the place of the one that was learned first."""


class IdleConnections:
    """The connections that wait for their next request, in the order in which they became idle."""

    def __init__(self) -> None:
        # All of a pool's connections may idle equally long, so the order of arrival is that of expiry too, and the
        # oldest of all is always the oldest of its origin: no list is ever searched.
        self._all: OrderedDict[Connection, Origin] = OrderedDict()
        self.count = 0
        """The number of connections."""
        self._by_origin: dict[Origin, deque[Connection]] = {}
        self._shortest: BoundedCache[Origin, tuple[float, float]] = BoundedCache(ORIGINS_MAX)
        """The shortest idle time in seconds at which an origin has closed a connection, and when it last did so."""

    def add(self, origin: Origin, connection: Connection) -> None:
        """Add a connection that has just become idle."""
        self._all[connection] = origin
        self.count += 1
        try:
            self._by_origin[origin].append(connection)
        except KeyError:
            self._by_origin[origin] = deque((connection,))

    def take(self, origin: Origin) -> Connection | None:
        """Remove and return the connection to ``origin`` that was used last, which is the likeliest to be alive."""
        try:
            stack = self._by_origin[origin]
        except KeyError:
            return None
        connection = stack.pop()
        if not stack:
            del self._by_origin[origin]
        del self._all[connection]
        self.count -= 1
        return connection

    def take_if_fresh(self, origin: Origin, now: float) -> Connection | None:
        """``take`` for a request that must not be sent twice: None if the origin may be about to close it."""
        stack = self._by_origin.get(origin)
        if stack is None:
            return None
        latest = stack[-1]
        if latest.idle_for(now) > idle_max(latest.keep_alive_hint, self._observed(origin)):
            return None
        return self.take(origin)

    def closed_by_peer(self, origin: Origin, connection: Connection, now: float) -> None:
        """Learn the idle time at which its peer closed a connection, at the latest ``now``."""
        ended_at = connection.ended_at
        idle = (now if ended_at is None else ended_at) - connection.idle_since
        shortest = self._observed(origin)
        if shortest is not None and idle > shortest:
            if idle * OBSERVED_SHARE > shortest:
                return  # It says nothing of the shortest.
            idle = shortest  # The same limit once more, with what clocks and the way add to it.
        self._shortest.add(origin, (idle, now))

    def survived(self, origin: Origin, connection: Connection, now: float) -> None:
        """Learn that the peer has not closed a connection that was idle until ``now``.

        What was observed of the origin is forgotten where this contradicts it and it is old: then it was no limit.
        """
        known = self._shortest.get(origin)
        if known is not None and now - connection.idle_since > known[0] and now - known[1] > OBSERVED_SECONDS:
            del self._shortest.entries[origin]

    def _observed(self, origin: Origin) -> float | None:
        """The shortest idle time that is remembered of ``origin``."""
        known = self._shortest.get(origin)
        return None if known is None else known[0]

    def origin_of(self, connection: Connection) -> Origin:
        """The origin of a connection that is kept."""
        return self._all[connection]

    def oldest(self) -> Connection | None:
        """The connection that has been idle the longest."""
        return next(iter(self._all), None)

    def take_oldest(self) -> Connection:
        """Remove and return the connection that has been idle the longest. There must be one."""
        connection, origin = self._all.popitem(last=False)
        self.count -= 1
        stack = self._by_origin[origin]
        stack.popleft()
        if not stack:
            del self._by_origin[origin]
        return connection
