"""Returning free heap memory to the system after a burst of requests or uploads (docs/decisions/0006).

The values of requests that are in flight together are spread over the whole heap. When the requests have ended, the C
library keeps the pages for later. ``malloc_trim`` of glibc returns them. It runs in a thread without the interpreter's
lock, but holds the allocator's lock, so the event loop waits at its next allocation of more than 512 bytes: some 0.3 ms
for each MiB that is returned. Therefore it is called seldom, after a burst has ended, and with more than
``BUSY_TRIM_MAX`` to return only while no request is in flight. A few large bodies leave as much free memory as a burst
of requests does, and their number does not show it: after uploads it is called where the process has grown by
``GROWTH_MIN``.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import trio

from ...net.timers import TimerQueue
from ..limits.memory import resident
from . import gc_tuning

BURST_MIN = 64
"""Requests in flight that are a burst; it has ended when a quarter of its peak is left."""
DELAY_S = 1.0
"""Seconds from the end of a burst to the trim: by then its responses are written and its objects are freed."""
INTERVAL_S = 60.0
"""Seconds between two trims, at least."""
RETRY_S = 5.0
"""Seconds until the next attempt, where requests in flight would have to wait for the trim."""
BUSY_TRIM_MAX = 64 * 2**20
"""Bytes that may be returned while requests are in flight: they wait for some 20 ms at most."""

GROWTH_MIN = 32 * 2**20
"""Bytes by which uploads must have let the process grow for a trim to be worth its cost."""


class HeapTrimmer:
    """Detects the end of a burst of requests, and trims the heap then.

    Whoever counts requests out compares the count with ``burst_ends_at``.
    """

    def __init__(self, timers: TimerQueue, in_flight: Callable[[], int]) -> None:
        self.peak = 0
        self.burst_ends_at = -1
        """So many requests in flight, or fewer, mean that a burst has ended; -1 where there was no burst."""
        self._timers = timers
        self._in_flight = in_flight
        self._floor = resident()
        """Resident bytes after the last trim, or at the start."""
        self._earliest = -math.inf
        self._due = False
        self._after_burst = False
        """Whether the trim is scheduled for a burst of requests, and not for uploads alone."""
        self._wanted = trio.Event()

    def peak_rose(self, in_flight: int) -> None:
        """More requests are in flight than ``peak``."""
        self.peak = in_flight
        if in_flight >= BURST_MIN:
            self.burst_ends_at = in_flight // 4

    def burst_ended(self, in_flight: int) -> None:
        """``burst_ends_at`` has been reached."""
        self.peak, self.burst_ends_at = in_flight, -1
        self._after_burst = True
        self._schedule()

    def uploads_ended(self) -> None:
        """The last of the uploads under way has ended."""
        self._schedule()

    def _schedule(self) -> None:
        if gc_tuning.applied() and not self._due:
            self._due = True
            self._timers.add(max(trio.current_time() + DELAY_S, self._earliest), self._look)

    def _look(self) -> None:
        in_flight = self._in_flight()
        if not self._after_burst and resident() - self._floor < GROWTH_MIN:
            self._due = False
        elif in_flight >= BURST_MIN:
            self._due = False  # The next burst has begun, and uses the memory that this one has left.
        elif in_flight and resident() - self._floor > BUSY_TRIM_MAX:
            self._timers.add(trio.current_time() + RETRY_S, self._look)
        else:
            self._wanted.set()

    async def run(self) -> None:
        """Trim the heap whenever a trim is due, until cancelled."""
        limiter = trio.CapacityLimiter(
            1
        )  # Not trio's default one: a look-up of a name that hangs must not delay the trim.
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.to_thread.run_sync(trim_heap, abandon_on_cancel=True, limiter=limiter)
            self._due = self._after_burst = False
            self._floor = resident()
            self._earliest = trio.current_time() + INTERVAL_S


def trim_heap() -> bool:
    """Return free memory to the system; False where the C library cannot. Blocks."""
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """``malloc_trim`` of glibc; None with another C library."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found
