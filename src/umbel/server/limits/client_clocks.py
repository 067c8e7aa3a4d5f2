"""Clocks that bound the time for which the server waits for a client: ``WriteClock`` and ``BodyClock``.

A timeout that starts again with every byte is no bound: one byte now and then would hold a request for ever. So each
clock adds up the waits. Time in which no task waits for the client does not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ..state import ServerState
    from .server_limits import Limits

PIECE = 64 * 1024
"""Bytes that a client must accept within ``write_timeout``, however large the response is."""
LOOP_LAG = 0.1
"""Seconds. A shorter wait for a socket does not count: a busy event loop may have run the task that late."""
_TURNS_OF_A_WRITE = 4
"""Turns of the event loop that a write may need, with TLS, although the client is fast."""


class WriteClock:
    """Bound on the waits for a client that accepts bytes: ``write_timeout`` times ``factor`` seconds per 64 KiB.

    A clock belongs to one resource that writes wait for: a socket, or a flow-control window. ``begin`` and ``end``
    enclose a wait for a window, ``begin`` and ``end_write`` a write to a socket. Several tasks may wait at once; the
    time that they wait together counts once. ``took`` counts accepted bytes.
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
        """Bytes, at least 1, that complete the present 64 KiB. One deadline holds for a write of no more bytes."""
        return PIECE - self._accepted

    @property
    def deadline(self) -> float:
        """When the present wait must end (trio's clock): by this clock, or by the end of a drain."""
        server = self._server
        own = self._since + server.limits.write_timeout * self._factor - self._spent
        return min(own, server.cut_at + server.limits.cancel_timeout)

    @property
    def stalled(self) -> float:
        """Seconds of waiting since the last complete 64 KiB."""
        return self._spent + (trio.current_time() - self._since if self._waiting else 0.0)

    def begin(self) -> float:
        """Note that a task begins to wait. Return the ``deadline``."""
        if not self._waiting:
            self._since = trio.current_time()
        self._waiting += 1
        return self.deadline

    def end(self) -> None:
        """Note that a task has ended its wait for a flow-control window."""
        self._charge(trio.current_time() - self._since)

    async def end_write(self) -> None:
        """Note that a task has ended its wait for a socket. The lateness of the event loop does not count.

        After a wait longer than ``LOOP_LAG`` it measures two turns of the event loop, shielded, and subtracts the time
        of ``_TURNS_OF_A_WRITE`` turns.
        """
        woken = trio.current_time()
        waited = woken - self._since
        if waited > LOOP_LAG:
            with trio.CancelScope(shield=True):
                # Two checkpoints: in the first turn, a task that slows the loop down may not have run.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            waited -= _TURNS_OF_A_WRITE * (trio.current_time() - woken)
        self._charge(waited if waited > LOOP_LAG else 0.0)

    def _charge(self, waited: float) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._spent += waited

    def took(self, size: int) -> None:
        """Note that the client has accepted ``size`` bytes. Complete 64 KiB set the waited time back to 0."""
        self._accepted += size
        if self._accepted >= PIECE:
            self._accepted %= PIECE
            self._spent = 0.0
            if self._waiting:
                self._since = trio.current_time()


class BodyClock:
    """Bound on the sum of the waits for one body or message: ``Limits.body_seconds`` of its size.

    Received bytes give no time back, except for a body without a size (``took``).
    """

    __slots__ = ("_limits", "_received", "_waited")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._received = 0
        self._waited = 0.0

    def left(self, size: float) -> float:
        """Seconds that may still be waited for a body of ``size`` bytes; negative if the time is over."""
        return self._limits.body_seconds(size) - self._waited

    def waited(self, seconds: float) -> None:
        """Add a wait of ``seconds``."""
        self._waited += seconds

    def took(self, size: int) -> None:
        """Note ``size`` received bytes of a body that may have any size. Complete ``PIECE`` bytes give the time back.

        The bound of such a body is ``left(PIECE)``: it may last for any time, as long as each 64 KiB come in time.
        """
        self._received += size
        if self._received >= PIECE:
            self._received %= PIECE
            self._waited = 0.0
