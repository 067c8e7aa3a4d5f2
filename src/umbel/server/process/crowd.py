"""Memory that a crowd of requests, or uploads, leave behind is given back to the system (docs/decisions/0006).

What was allocated for requests that are held at one time lies in pieces all over the heap. When they have gone, the C
library keeps the pages for the next crowd. ``malloc_trim`` of glibc gives them back. It runs in a thread without the
interpreter's lock, but holds the allocator's, so the loop waits at its next allocation of more than 512 bytes: some
0.3 ms for each MiB that is given back. So it is called seldom, after a crowd has gone, and with much to give back only
while nothing is in flight. A few large bodies leave as much behind as a crowd does, and nobody can tell from their
number: after uploads it is called where the process has grown by ``GROWN_MIN``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import trio

from ...net.timers import TimerQueue
from ..limits.memory import resident
from . import gc_tuning as garbage

CROWD_MIN = 64
"""Requests in flight that are a crowd; it has gone when a quarter of its peak is left."""
QUIET_S = 1.0
"""Seconds after a crowd has gone: its answers have been written, and its garbage is no more."""
EVERY_S = 60.0
"""Between two times that memory is given back."""
AGAIN_S = 5.0
"""Until it is tried again, while requests are in flight that would wait for it."""
BESIDE_REQUESTS_MAX = 64 * 2**20
"""Bytes that may be given back while requests are in flight: they wait some 20 ms for it at most."""

GROWN_MIN = 32 * 2**20
"""Bytes that uploads must have left behind for the loop to wait for their return."""


class Crowd:
    """Notices that a crowd of requests has gone. ``gone_at`` is compared by whoever counts requests out."""

    def __init__(self, timers: TimerQueue, in_flight: Callable[[], int]) -> None:
        self.peak = 0
        self.gone_at = -1
        """So many requests in flight, or fewer, say that a crowd has gone; -1 as long as there was none."""
        self._timers = timers
        self._in_flight = in_flight
        self._floor = resident()
        """Resident bytes when memory was last given back, or at the start."""
        self._earliest = -math.inf
        self._due = False
        self._was_crowd = False
        """Whether it is due for more than uploads."""
        self._wanted = trio.Event()

    def grew(self, in_flight: int) -> None:
        """More requests are in flight than ``peak``."""
        self.peak = in_flight
        if in_flight >= CROWD_MIN:
            self.gone_at = in_flight // 4

    def went(self, in_flight: int) -> None:
        """``gone_at`` has been reached."""
        self.peak, self.gone_at = in_flight, -1
        self._was_crowd = True
        self._fall_due()

    def uploaded(self) -> None:
        """The last of the uploads under way has ended."""
        self._fall_due()

    def _fall_due(self) -> None:
        if garbage.owned() and not self._due:
            self._due = True
            self._timers.add(max(trio.current_time() + QUIET_S, self._earliest), self._look)

    def _look(self) -> None:
        in_flight = self._in_flight()
        if not self._was_crowd and resident() - self._floor < GROWN_MIN:
            self._due = False
        elif in_flight >= CROWD_MIN:
            self._due = False  # The next crowd is here already, and takes what this one has left.
        elif in_flight and resident() - self._floor > BESIDE_REQUESTS_MAX:
            self._timers.add(trio.current_time() + AGAIN_S, self._look)
        else:
            self._wanted.set()

    async def run(self) -> None:
        """Give memory back when it is time, until cancelled."""
        limiter = trio.CapacityLimiter(1)  # Not the common one: a hanging look-up must not hold this up.
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.to_thread.run_sync(give_back, abandon_on_cancel=True, limiter=limiter)
            self._due = self._was_crowd = False
            self._floor = resident()
            self._earliest = trio.current_time() + EVERY_S


def give_back() -> bool:
    """Give free memory back to the system; False where the C library has no way to. Blocks."""
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function; others have none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found
