"""Heap trim: returning free heap memory to the system after bursts, uploads and streams (docs/decisions/0006).

The objects of many requests in flight are spread over the heap. When the requests have ended, the C library keeps the
free pages; ``malloc_trim`` of glibc returns them. It runs in a thread without the GIL, but it holds the allocator's
lock. So the event loop waits at its next allocation of more than 512 bytes: 0.3 ms for each MiB that is returned.

Therefore a trim runs at most every ``INTERVAL_S`` seconds, and only

- after a burst of at least ``BURST_MIN`` requests in flight has ended, or
- after the last upload or the last stream, if the process has grown by ``GROWTH_MIN``: a few large bodies, or many
  streams, leave as much free memory. Neither counts as a request in flight.

With more than ``BUSY_TRIM_MAX`` to return, it waits until no request is in flight.
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
"""Requests in flight that make a burst. It ends when a quarter of its peak is left."""
DELAY_S = 1.0
"""Seconds from the end of a burst to the trim, in which responses are written and objects are freed."""
INTERVAL_S = 60.0
"""Least seconds between two trims."""
RETRY_S = 5.0
"""Seconds until the next attempt, if requests in flight prevent a trim."""
BUSY_TRIM_MAX = 64 * 2**20
"""Most bytes to return while requests are in flight. A trim of so many delays them by some 20 ms."""

GROWTH_MIN = 32 * 2**20
"""Bytes by which uploads or streams must have made the process grow for a trim."""


class HeapTrimmer:
    """Detects the end of bursts, uploads and streams, and trims the heap in ``run``.

    Without ``gc_tuning.apply`` nothing is trimmed. The code that counts requests in flight calls ``peak_rose`` when
    their number exceeds ``peak``, and ``burst_ended`` when it has fallen to ``burst_ends_at``: two comparisons per
    request. ``in_flight()`` gives the present number.
    """

    def __init__(self, timers: TimerQueue, in_flight: Callable[[], int]) -> None:
        self.peak = 0
        self.burst_ends_at = -1
        """Requests in flight at which the present burst has ended; -1 without a burst."""
        self._timers = timers
        self._in_flight = in_flight
        self._floor = resident()
        """Resident bytes after the last trim, or at the start."""
        self._earliest = -math.inf
        self._due = False
        self._after_burst = False
        """Whether the scheduled trim follows a burst, and not only uploads or streams."""
        self._wanted = trio.Event()

    def peak_rose(self, in_flight: int) -> None:
        """Note a new peak of requests in flight."""
        self.peak = in_flight
        if in_flight >= BURST_MIN:
            self.burst_ends_at = in_flight // 4

    def burst_ended(self, in_flight: int) -> None:
        """Schedule a trim: the requests in flight have fallen to ``burst_ends_at``."""
        self.peak, self.burst_ends_at = in_flight, -1
        self._after_burst = True
        self._schedule()

    def long_requests_ended(self) -> None:
        """Schedule a trim, if the process has grown: the last upload, or the last stream, has ended."""
        self._schedule()

    def _schedule(self) -> None:
        """Have ``_look`` called after ``DELAY_S``, or ``INTERVAL_S`` after the last trim."""
        if gc_tuning.applied() and not self._due:
            self._due = True
            self._timers.add(max(trio.current_time() + DELAY_S, self._earliest), self._look)

    def _look(self) -> None:
        """Decide whether to trim now, later or not at all."""
        in_flight = self._in_flight()
        if not self._after_burst and resident() - self._floor < GROWTH_MIN:
            self._due = False
        elif in_flight >= BURST_MIN:
            self._due = False  # The next burst has begun, and uses the free memory of the last one.
        elif in_flight and resident() - self._floor > BUSY_TRIM_MAX:
            self._timers.add(trio.current_time() + RETRY_S, self._look)
        else:
            self._wanted.set()

    async def run(self) -> None:
        """Trim the heap whenever a trim is due, until cancelled."""
        # Not trio's default limiter: look-ups of names that hang may have used it up.
        limiter = trio.CapacityLimiter(1)
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.to_thread.run_sync(trim_heap, abandon_on_cancel=True, limiter=limiter)
            self._due = self._after_burst = False
            self._floor = resident()
            self._earliest = trio.current_time() + INTERVAL_S


def trim_heap() -> bool:
    """Return free heap memory to the system. Blocks. False if nothing was returned, or without ``malloc_trim``."""
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """``malloc_trim`` of glibc; None if the C library has none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found
