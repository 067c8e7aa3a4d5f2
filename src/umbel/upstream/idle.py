"""The idle connections of a pool: last in, first out for each origin, first in, first out for expiry.

Used by the pool alone. Every operation is O(1); nothing is awaited and nothing is closed here.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from .connection import Connection
from .origin import Origin


class IdleConnections:
    """Connections that wait for their next request, in the order in which they became idle."""

    def __init__(self) -> None:
        # All of a pool's connections may idle equally long, so the order of arrival is that of expiry too, and the
        # oldest of all is always the oldest of its origin: no list is ever searched.
        self._all: OrderedDict[Connection, Origin] = OrderedDict()
        self._by_origin: dict[Origin, deque[Connection]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection."""
        self._all[connection] = origin
        self._by_origin.setdefault(origin, deque()).append(connection)

    def take(self, origin: Origin) -> Connection | None:
        """The connection to ``origin`` that was used last, or None. It is the likeliest to be alive still."""
        stack = self._by_origin.get(origin)
        if stack is None:
            return None
        connection = stack.pop()
        if not stack:
            del self._by_origin[origin]
        del self._all[connection]
        return connection

    def oldest(self) -> Connection | None:
        """The connection that has been idle the longest."""
        return next(iter(self._all), None)

    def take_oldest(self) -> Connection:
        """Remove and return it. There must be one."""
        connection, origin = self._all.popitem(last=False)
        stack = self._by_origin[origin]
        stack.popleft()
        if not stack:
            del self._by_origin[origin]
        return connection
