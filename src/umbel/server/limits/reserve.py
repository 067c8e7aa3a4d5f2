"""What a full server keeps for probes: requests beyond ``max_in_flight``, and connections beyond ``max_connections``.

A probe asks whether the process lives. A busy process lives, so none of the caps may answer for it. What is kept is
small and bounded, and nothing but a probe is answered on it: whoever fills it gains no server.
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
    """The place of one connection beyond the cap. Its scope ends the connection when its time is over."""

    def __init__(self) -> None:
        now = trio.current_time()
        self.head_until = now + RESERVED_HEAD_S
        self.scope = trio.CancelScope(deadline=now + RESERVED_S)
        self.awaits_answer: Callable[[], bool] = _no
        """Whether the connection has brought a probe that the application has not answered yet. As long as it has, no
        newer connection displaces it. Whoever serves the connection sets it."""


class ReservedRequest(Protocol):
    """A probe in flight on one of the places beyond ``max_in_flight``."""

    @property
    def answering(self) -> bool:
        """Whether the application has begun its answer, so that it is the client that takes its time."""
        ...

    def displace(self, reason: str) -> None:
        """End it now, and count it out."""
        ...


class Reserve:
    """The places that are kept. A newer probe displaces the oldest whose application has answered.

    The time that a client takes to read its answer, or to leave, is not ours to bound a place with. The same goes for
    connections that have brought no probe: a newer connection displaces the oldest of them. They would have to be
    opened faster than probes are sent: as many as there are reserved connections between the accept of the probe's
    connection and the arrival of its head.
    """

    def __init__(self) -> None:
        self._connections: dict[ReservedConnection, None] = {}
        """In the order of their coming."""
        self.requests: dict[ReservedRequest, None] = {}
        """The probes in flight that ``max_in_flight`` had no place for, in the order of their coming."""

    def make_room(self) -> bool:
        """Displace the oldest probe that its client alone keeps in flight; False if there is none."""
        oldest = next((request for request in self.requests if request.answering), None)
        if oldest is None:
            return False
        del self.requests[oldest]
        oldest.displace("a newer probe takes the place")
        return True

    @contextmanager
    def connection(self) -> Iterator[ReservedConnection | None]:
        """A reserved connection while the block runs; None if each has a probe that awaits its answer."""
        if len(self._connections) >= RESERVED_CONNECTIONS:
            oldest = next((reserved for reserved in self._connections if not reserved.awaits_answer()), None)
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
        """End every connection on which no probe awaits its answer."""
        for reserved in [reserved for reserved in self._connections if not reserved.awaits_answer()]:
            self._displace(reserved, reason)

    def _displace(self, reserved: ReservedConnection, reason: str) -> None:
        del self._connections[reserved]
        reserved.scope.cancel(reason=reason)


def _no() -> bool:
    return False
