"""Idle connections of a pool. Of an origin's connections the last used is taken first; the oldest of all expires first.

Every operation takes constant time, never waits and closes nothing. The idle times at which origins have closed
connections are remembered for ``policy.idle_reuse``.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ...net.bounded_cache import BoundedCache
from ...policy.idle_reuse import OBSERVED_SECONDS, OBSERVED_SHARE, idle_max
from ..replicas.origin import Origin
from .connection import Connection

ORIGINS_MAX = 1024
"""Bound on the origins whose idle times are remembered; a further one replaces that with the oldest observation."""


class IdleConnections:
    """The idle connections of a pool, in the order in which they became idle."""

    def __init__(self) -> None:
        # Every connection may be idle for the same time, so this is the order of expiry as well. The oldest of all is
        # also the oldest of its origin, at the left end of that origin's deque: nothing is ever searched.
        self._all: OrderedDict[Connection, Origin] = OrderedDict()
        self.count = 0
        """Number of connections."""
        self._by_origin: dict[Origin, deque[Connection]] = {}
        self._shortest: BoundedCache[Origin, tuple[float, float]] = BoundedCache(ORIGINS_MAX)
        """Shortest idle time in seconds at which an origin has closed a connection, and the time of the observation."""

    def add(self, origin: Origin, connection: Connection) -> None:
        """Add a connection that becomes idle."""
        self._all[connection] = origin
        self.count += 1
        try:
            self._by_origin[origin].append(connection)
        except KeyError:
            self._by_origin[origin] = deque((connection,))

    def take(self, origin: Origin) -> Connection | None:
        """Remove and return the connection to ``origin`` that became idle last; None without one."""
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
        """Remove and return the latest idle connection to ``origin``, for a request that must not be sent twice.

        Returns None without one, or if the origin may soon close the connection.
        """
        stack = self._by_origin.get(origin)
        if stack is None:
            return None
        latest = stack[-1]
        if latest.idle_for(now) > idle_max(latest.keep_alive_hint, self._observed(origin)):
            return None
        return self.take(origin)

    def closed_by_peer(self, origin: Origin, connection: Connection, now: float) -> None:
        """Remember how long a connection was idle when its peer closed it; ``now`` counts if the time is not known."""
        ended_at = connection.ended_at
        idle = (now if ended_at is None else ended_at) - connection.idle_since
        shortest = self._observed(origin)
        if shortest is not None and idle > shortest:
            if idle * OBSERVED_SHARE > shortest:
                return  # Much longer than the shortest idle time: no observation of the same timeout.
            idle = shortest  # The same timeout, observed later because of clocks and transfer: only its time is new.
        self._shortest.add(origin, (idle, now))

    def survived(self, origin: Origin, connection: Connection, now: float) -> None:
        """Take note that the peer has not closed a connection that was idle until ``now``.

        The origin's shortest idle time is forgotten if this connection was idle for longer and the observation is older
        than OBSERVED_SECONDS: then it was no idle timeout of the origin.
        """
        known = self._shortest.get(origin)
        if known is not None and now - connection.idle_since > known[0] and now - known[1] > OBSERVED_SECONDS:
            del self._shortest.entries[origin]

    def _observed(self, origin: Origin) -> float | None:
        """The remembered shortest idle time of ``origin`` in seconds; None without an observation."""
        known = self._shortest.get(origin)
        return None if known is None else known[0]

    def origin_of(self, connection: Connection) -> Origin:
        """The origin of an idle connection."""
        return self._all[connection]

    def oldest(self) -> Connection | None:
        """The connection that has been idle the longest; None without any."""
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
