"""Reserve: capacity for probes beyond ``max_in_flight`` and ``max_connections``.

A probe asks whether the process runs. A busy process runs, so a limit on load must not refuse a probe. The reserve is
bounded, and only probes are answered on it, so a client gains nothing else by filling it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import trio

RESERVED_REQUESTS = 16
"""Probes in flight beyond ``max_in_flight`` and ``memory_limit``."""
RESERVED_CONNECTIONS = 64
"""Connections beyond ``max_connections`` whose first request is read, because it may be a probe."""
RESERVED_HEAD_S = 2.0
"""Seconds from the accept of such a connection to the end of its request head, including a TLS handshake."""
RESERVED_S = 5.0
"""Seconds after which such a connection ends in any case."""


class ReservedConnection:
    """A connection beyond ``max_connections``. Its ``scope`` encloses all of it, and ends it after ``RESERVED_S``."""

    def __init__(self) -> None:
        now = trio.current_time()
        self.head_until = now + RESERVED_HEAD_S
        self.scope = trio.CancelScope(deadline=now + RESERVED_S)
        self.awaits_response: Callable[[], bool] = _no
        """Whether a probe of this connection awaits the application's response: then no newer connection displaces it.
        Set by the connection's protocol."""


class ReservedRequest(Protocol):
    """A probe in flight beyond ``max_in_flight``."""

    @property
    def response_started(self) -> bool:
        """Whether the response has begun, so that only the client keeps the request in flight."""
        ...

    def displace(self, reason: str) -> None:
        """End the request now, and count it out."""
        ...


class Reserve:
    """The reserved requests and connections of a server.

    When the reserve is full, a newer probe displaces the oldest one whose response has begun, and a newer connection
    displaces the oldest one on which no probe awaits its response. So slow or silent clients cannot keep the reserve.
    To keep a probe out, a client would have to open ``RESERVED_CONNECTIONS`` connections between the accept of the
    probe's connection and its request.
    """

    def __init__(self) -> None:
        self._connections: dict[ReservedConnection, None] = {}
        """The reserved connections, oldest first."""
        self.requests: dict[ReservedRequest, None] = {}
        """The probes in flight beyond ``max_in_flight``, oldest first."""

    def leave(self, request: object) -> None:
        """Take a request out of the reserve, if it is in it: it does not count in ``max_in_flight`` any more."""
        self.requests.pop(cast("ReservedRequest", request), None)

    def make_room(self) -> bool:
        """Displace the oldest probe whose response has begun. Return False if there is none."""
        oldest = next((request for request in self.requests if request.response_started), None)
        if oldest is None:
            return False
        del self.requests[oldest]
        oldest.displace("a newer probe takes the place")
        return True

    @contextmanager
    def connection(self) -> Iterator[ReservedConnection | None]:
        """Yield a reserved connection for the block; None if each one has a probe that awaits its response."""
        if len(self._connections) >= RESERVED_CONNECTIONS:
            oldest = next((reserved for reserved in self._connections if not reserved.awaits_response()), None)
            if oldest is None:
                yield None
                return
            self._displace(oldest, "a newer connection takes the place")
        reserved = ReservedConnection()
        self._connections[reserved] = None
        try:
            yield reserved
        finally:
            self._connections.pop(reserved, None)

    def clear(self, reason: str) -> None:
        """End each reserved connection on which no probe awaits its response."""
        for reserved in [reserved for reserved in self._connections if not reserved.awaits_response()]:
            self._displace(reserved, reason)

    def _displace(self, reserved: ReservedConnection, reason: str) -> None:
        del self._connections[reserved]
        reserved.scope.cancel(reason=reason)


def _no() -> bool:
    return False
