"""What a full server keeps for probes: requests beyond ``max_in_flight``, and connections beyond ``max_connections``.

A probe asks whether the process lives. A busy process lives, so none of the caps may answer for it. What is kept is
small and bounded, and nothing but a probe is answered on it: whoever fills it gains no service.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

RESERVED_REQUESTS = 16
"""Probes in flight beyond ``max_in_flight`` and ``memory_limit``."""
RESERVED_CONNECTIONS = 64
"""Connections beyond ``max_connections`` that are read, to find out whether they bring a probe."""
RESERVED_HEAD_S = 2.0
"""From the accept of such a connection to the end of its request's head, a TLS handshake included."""
RESERVED_S = 5.0
"""The whole life of such a connection."""


class Seat:
    """The place of one connection beyond the cap. Its scope ends the connection when its time is over."""

    def __init__(self) -> None:
        now = trio.current_time()
        self.head_until = now + RESERVED_HEAD_S
        self.scope = trio.CancelScope(deadline=now + RESERVED_S)
        self.kept = False
        """Whether the connection has brought a probe, so that no newer connection displaces it."""


class Reserve:
    """The seats. When all are taken a newer connection displaces the oldest that has not brought a probe.

    So silent connections hold no seat against a probe. They would have to be opened faster than probes are sent: as
    many as there are seats between the accept of the probe's connection and the arrival of its head.
    """

    def __init__(self) -> None:
        self._seats: dict[Seat, None] = {}
        """In the order of their coming."""

    @contextmanager
    def seat(self) -> Iterator[Seat | None]:
        """A seat for as long as the block runs; None if each seat has a probe that is being answered."""
        if len(self._seats) >= RESERVED_CONNECTIONS:
            oldest = next((seat for seat in self._seats if not seat.kept), None)
            if oldest is None:
                yield None
                return
            self._displace(oldest, "a newer connection takes the place")
        seat = Seat()
        self._seats[seat] = None
        try:
            yield seat
        finally:
            self._seats.pop(seat, None)

    def clear(self, reason: str) -> None:
        """End every connection that has not brought a probe."""
        for seat in [seat for seat in self._seats if not seat.kept]:
            self._displace(seat, reason)

    def _displace(self, seat: Seat, reason: str) -> None:
        del self._seats[seat]
        seat.scope.cancel(reason=reason)
