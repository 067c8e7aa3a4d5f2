"""Clocks of the time that a client takes, which a client cannot extend by accepting or sending a few bytes.

A deadline that starts again with every byte is no limit: one byte now and then would hold a request for ever. So these
two clocks add up the time that was spent waiting for the client. Time in which nobody waits for the client does not
count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ..state import ServerState
    from .server_limits import Limits

PIECE = 64 * 1024
"""Bytes that a client must accept within ``write_timeout``: the clock measures progress, not the size of a response."""
LOOP_LAG = 0.1
"""Seconds. A write is known to be over only when its task runs again, so a wait this short may be a busy loop's."""
_TURNS_OF_A_WRITE = 4
"""Turns of the event loop that a write may need, TLS included, though the client is quick."""


class WriteClock:
    """``write_timeout`` times ``factor`` seconds of waiting for each 64 KiB that the client accepts.

    A clock belongs to one thing that can hold writes up: a socket, or a flow-control window. ``begin`` and ``end``
    enclose each wait, ``begin`` and ``end_write`` each write; several tasks may wait at a time, and that time counts
    once. ``took`` says what was accepted.
    """

    __slots__ = ("_accepted", "_factor", "_server", "_since", "_spent", "_waiting")

    def __init__(self, server: ServerState, *, factor: float = 1.0) -> None:
        self._server = server
        self._factor = factor
        self._accepted = 0
        self._spent = 0.0
        self._since = 0.0
        self._waiting = 0

    @property
    def room(self) -> int:
        """Bytes that are left of the present 64 KiB; at least 1."""
        return PIECE - self._accepted

    @property
    def deadline(self) -> float:
        """When the wait that is under way must have ended; earlier where a drain cuts what is in flight."""
        server = self._server
        own = self._since + server.limits.write_timeout * self._factor - self._spent
        return min(own, server.cut_at + server.limits.cancel_timeout)

    @property
    def stalled(self) -> float:
        """Seconds that were waited since the last whole 64 KiB."""
        return self._spent + (trio.current_time() - self._since if self._waiting else 0.0)

    def begin(self) -> float:
        """A task begins to wait; the ``deadline``."""
        if not self._waiting:
            self._since = trio.current_time()
        self._waiting += 1
        return self.deadline

    def end(self) -> None:
        """A task no longer waits."""
        self._charge(trio.current_time() - self._since)

    async def end_write(self) -> None:
        """A task no longer waits for a socket. What the event loop was late by is not the client's fault."""
        woken = trio.current_time()
        waited = woken - self._since
        if waited > LOOP_LAG:
            with trio.CancelScope(shield=True):
                # Two: between one and the next, whoever holds the loop up may not have had its turn.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            waited -= _TURNS_OF_A_WRITE * (trio.current_time() - woken)
        self._charge(waited if waited > LOOP_LAG else 0.0)

    def _charge(self, waited: float) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._spent += waited

    def took(self, size: int) -> None:
        """The client accepted ``size`` bytes more."""
        self._accepted += size
        if self._accepted >= PIECE:
            self._accepted %= PIECE
            self._spent = 0.0
            if self._waiting:
                self._since = trio.current_time()


class BodyClock:
    """Limit on the waiting for what a client sends: ``Limits.body_seconds`` of its size, over all the time waited.

    No byte that comes gives time back, so the client cannot move it.
    """

    __slots__ = ("_limits", "_waited")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waited = 0.0

    def left(self, size: float) -> float:
        """Seconds that may still be waited for a body of ``size`` bytes."""
        return self._limits.body_seconds(size) - self._waited

    def waited(self, seconds: float) -> None:
        """The client was waited for."""
        self._waited += seconds
