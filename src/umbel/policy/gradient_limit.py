"""Gradient limit: a limit of concurrent calls that adapts to the durations of calls.

The algorithm is Netflix's Gradient2 (github.com/Netflix/concurrency-limits, ``Gradient2Limit`` in ``WindowedLimit``),
with the tolerance and the headroom of Envoy's adaptive concurrency filter (its gradient controller).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_SECONDS = 1.0
"""Seconds of a window. The limit is adapted once per window (Netflix)."""
SAMPLES_MIN = 10
"""Smallest number of calls in a window that counts (Netflix)."""
LONG_WINDOWS = 600
"""Number of windows of the long-term average (Netflix)."""
WARMUP_WINDOWS = 10
"""Number of first windows with equal weight in the long-term average (Netflix). While the limit is pressed at its
minimum, a longer duration enters the average with the weight of one in this many windows."""
SMOOTHING = 0.2
"""Share of the way to the wanted limit that one window moves the limit (Netflix)."""
GRADIENT_MIN = 0.5
"""Lowest gradient, so that one window of outliers cannot shrink the limit further (Netflix, Envoy)."""
TOLERANCE = 1.25
"""Ratio of recent to usual duration up to which nothing is queueing (Envoy's ``buffer``)."""


@dataclass(frozen=True, slots=True)
class LimitStatistics:
    """A snapshot of a gradient limit. Durations in seconds; None before the first window that counts."""

    limit: int
    """Calls that may be in flight."""
    usual: float | None
    """Long-term average, which hardly rises while the limit is pressed (``GradientLimit``)."""
    recent: float | None
    """Average of the last window that counted."""


class GradientLimit:
    """Concurrency limit that shrinks while calls take longer than usual, and otherwise grows while it is in use.

    The limit is adapted after each window of a second in which at least ten calls ended: when the next call ends::

        gradient = usual * 1.25 / recent, bounded to 0.5 … 1
        wanted   = gradient * limit, or limit + sqrt(limit) if the gradient is 1
        limit    = 0.8 * limit + 0.2 * wanted, bounded to minimum … maximum

    ``recent`` is the average duration of the window's calls, and ``usual`` is the long-term average, over some ten
    minutes. The limit is *pressed* in a window if at least half of it was in use. Other windows do not change the
    limit, because they do not show what more calls would cause.

    ``usual`` falls quickly once calls take less than half of it. Unlike Netflix's average it does not rise while the
    limit is pressed: otherwise a long overload would raise ``usual`` to the duration of queueing, and the limit would
    grow to its maximum. If the upstream has become slower for good, the limit falls to its minimum. There calls hardly
    queue, so ``usual`` may rise and reaches the new duration within seconds (Envoy also measures at a minimum). Unlike
    in both models, the headroom ``sqrt(limit)`` is added only if nothing is queueing. If the first window is one of
    overload, its duration is taken as usual until a window with less load.

    Args:
        initial, minimum, maximum: the limit at first and its bounds, as numbers of calls in flight.

    Raises:
        ValueError: not ``1 <= minimum <= initial <= maximum``.
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
            raise ValueError("a gradient limit needs 1 <= minimum <= initial <= maximum")
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
        """Number of calls that may be in flight."""
        return int(self._limit)

    def ended(self, now: float, seconds: float, in_flight: int) -> None:
        """Count the end of a call that timed out, or had a response with a status below 500. Not for other calls.

        Args:
            seconds: duration of the call.
            in_flight: number of calls in flight, including this one.
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
        """Adapt the limit after a window whose calls took ``recent`` seconds on average."""
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
        """The long-term average after one more window."""
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
        # After a long overload the average is far too high, and would take minutes to fall.
        return usual * 0.9 if usual > 2 * recent else usual
