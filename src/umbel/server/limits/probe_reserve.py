"""Reserved capacity for probes: requests beyond ``max_in_flight``, and connections beyond ``max_connections``.

A probe asks whether the process runs. A busy process runs, so no limit on load may refuse a probe. The reserve is small
and bounded, and only probes are answered on it: whoever fills it gets no other request served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

RESERVED_REQUESTS = 16
"""Probes in flight beyond ``max_in_flight`` and ``memory_limit``."""
RESERVED_CONNECTIONS = 64
"""Connections beyond ``max_connections`` that are read, to find out whether they bring a probe."""
RESERVED_HEAD_S = 2.0
"""From the accept of such a connection to the end of its request's head, a TLS handshake included."""
RESERVED_S = 5.0
"""The whole life of such a connection."""


class ReservedConnection:
    """A connection beyond ``max_connections``. Its scope ends the connection when its time is over."""

    def __init__(self) -> None:
        now = trio.current_time()
        self.head_until = now + RESERVED_HEAD_S
        self.scope = trio.CancelScope(deadline=now + RESERVED_S)
        self.awaits_response: Callable[[], bool] = _no
        """Whether the connection has brought a probe that the application has not answered yet. As long as it has, no
        newer connection displaces it. Whoever serves the connection sets it."""


class ReservedRequest(Protocol):
    """A probe in flight beyond ``max_in_flight``."""

    @property
    def response_started(self) -> bool:
        """Whether the application has begun its response, so that it is the client that takes its time."""
        ...

    def displace(self, reason: str) -> None:
        """End it now, and count it out."""
        ...


class Reserve:
    """The reserved requests and connections. A newer probe displaces the oldest whose application has answered.

    A client that is slow to read its response, or to close, must not keep a reserved place. Neither must a connection
    that has brought no probe: a newer connection displaces the oldest of these. To keep probes out, a client would have
    to open connections faster than a probe follows its connection: one for each reserved connection in between.
    """

    def __init__(self) -> None:
        self._connections: dict[ReservedConnection, None] = {}
        """In the order of their coming."""
        self.requests: dict[ReservedRequest, None] = {}
        """The probes in flight that ``max_in_flight`` had no place for, in the order of their coming."""

    def make_room(self) -> bool:
        """Displace the oldest probe that its client alone keeps in flight; False if there is none."""
        oldest = next((request for request in self.requests if request.response_started), None)
        if oldest is None:
            return False
        del self.requests[oldest]
        oldest.displace("a newer probe takes the place")
        return True

    @contextmanager
    def connection(self) -> Iterator[ReservedConnection | None]:
        """A reserved connection while the block runs; None if each has a probe that awaits its response."""
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
        """End every connection on which no probe awaits its response."""
        for reserved in [reserved for reserved in self._connections if not reserved.awaits_response()]:
            self._displace(reserved, reason)

    def _displace(self, reserved: ReservedConnection, reason: str) -> None:
        del self._connections[reserved]
        reserved.scope.cancel(reason=reason)


def _no() -> bool:
    return False
