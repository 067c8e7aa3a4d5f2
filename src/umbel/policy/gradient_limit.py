"""Gradient limit: the number of concurrent calls of an upstream, adapted to how long calls take.

``ended`` is called for each call whose duration is of use. It has no clock: ``now`` is handed in, in seconds. The
algorithm is Netflix's Gradient2 (github.com/Netflix/concurrency-limits, ``Gradient2Limit`` in ``WindowedLimit``) with
the tolerance and headroom of Envoy's adaptive concurrency filter (its gradient controller).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_SECONDS = 1.0
"""Seconds of a window. The limit is adapted once per window (Netflix)."""
SAMPLES_MIN = 10
"""Calls that a window needs at least to count (Netflix)."""
LONG_WINDOWS = 600
"""How many windows the long-term average reaches back (Netflix)."""
WARMUP_WINDOWS = 10
"""The first windows of the long-term average weigh alike (Netflix); at the minimum it reaches back so far only."""
SMOOTHING = 0.2
"""How far one window moves the limit towards what it says (Netflix)."""
GRADIENT_MIN = 0.5
"""The lowest gradient: a window of outliers must not do more than that (both)."""
TOLERANCE = 1.25
"""Slower than usual by a quarter is no queue yet (Envoy's ``buffer``)."""


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """Snapshot of an adaptive limit. Times in seconds; None before the first window has counted."""

    limit: int
    usual: float | None
    """The long-term average of windows that did not press."""
    recent: float | None
    """The average of the last window."""


class GradientLimit:
    """Concurrency limit that shrinks while calls take longer than usual, and otherwise grows while it is in use.

    Once per window of a second in which at least ten calls ended (looked at when the first call behind it ends)::

        gradient = usual * 1.25 / recent, but from 0.5 to 1
        wanted   = gradient * limit, but limit + sqrt(limit) where the gradient is 1
        limit    = 0.8 * limit + 0.2 * wanted

    A window that never used half of the limit leaves it as it is: it says nothing of what more calls would do.

    The usual time is an average that reaches back ten minutes; it falls quickly once calls take less than half of it.
    Unlike Netflix's it does not rise while the limit is pressed, or an hour of full load would teach it that the queue
    is usual, and the limit would run away (to the maximum, in a simulation of just that). Where the upstream became
    slower for good the limit falls to its minimum instead, where calls hardly queue, and the new time is learned there
    within seconds (Envoy measures anew there, too); so, unlike both, the headroom is given only where nothing queues.
    Whoever starts under overload takes that for usual, until a quieter window.
    """

    __slots__ = (
        "_count",
        "_ends_at",
        "_in_flight",
        "_limit",
        "_max",
        "_min",
        "_recent",
        "_total",
        "_usual",
        "_windows",
    )

    def __init__(self, *, initial: int = 20, minimum: int = 4, maximum: int = 1000) -> None:
        if not 1 <= minimum <= initial <= maximum:
            raise ValueError("an adaptive limit needs 1 <= minimum <= initial <= maximum")
        self._min = minimum
        self._max = maximum
        self._limit = float(initial)
        self._usual: float | None = None
        self._recent: float | None = None
        self._windows = 0
        self._ends_at = -math.inf
        self._count = self._in_flight = 0
        self._total = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in flight at once."""
        return int(self._limit)

    def ended(self, now: float, seconds: float, in_flight: int) -> None:
        """Count a call that took ``seconds``, or timed out after them, with ``in_flight`` calls including itself.

        Only for calls that were answered or timed out; never for one that was cut or failed at once.
        """
        if now >= self._ends_at:
            if self._count >= SAMPLES_MIN:
                self._look(self._total / self._count)
            self._ends_at = now + WINDOW_SECONDS
            self._count = self._in_flight = 0
            self._total = 0.0
        self._count += 1
        self._total += seconds
        self._in_flight = max(self._in_flight, in_flight)

    def statistics(self) -> LimitStatistics:
        """A snapshot."""
        return LimitStatistics(self.limit, self._usual, self._recent)

    def _look(self, recent: float) -> None:
        """Adapt the limit at the end of a window whose calls took ``recent`` seconds on average."""
        self._recent = recent
        pressed = self._in_flight >= self._limit / 2
        usual = self._usual = self._learned(recent, pressed)
        if not pressed:
            return
        gradient = 1.0 if recent <= 0 else max(GRADIENT_MIN, min(1.0, usual * TOLERANCE / recent))
        wanted = gradient * self._limit if gradient < 1 else self._limit + math.sqrt(self._limit)
        smoothed = (1 - SMOOTHING) * self._limit + SMOOTHING * wanted
        self._limit = max(float(self._min), min(float(self._max), smoothed))

    def _learned(self, recent: float, pressed: bool) -> float:
        """The long-term average with one more window."""
        self._windows += 1
        if self._usual is None:
            return recent
        weight = 2 / (LONG_WINDOWS + 1)
        if self._windows <= WARMUP_WINDOWS:
            weight = 1 / self._windows
        elif pressed and recent > self._usual:
            if self.limit > self._min:
                return self._usual
            weight = 1 / WARMUP_WINDOWS
        usual = self._usual + weight * (recent - self._usual)
        # After a long overload the average is far too high, and would be for minutes.
        return usual * 0.9 if usual > 2 * recent else usual
