"""A quantile of recent latencies over a sliding window, in bounded memory.

It has no clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

FLOOR = 0.001
"""Seconds of the lowest bucket: a smaller percentile would hedge every call."""
CEILING = 1000.0
"""Seconds of the highest bucket."""
ERROR = 0.05
"""Relative error: a percentile is never below the true one, and at most this share above it (from floor to ceiling)."""
SAMPLES_MIN = 100
"""Samples that a percentile needs at least."""

# The upper bounds of the buckets. Each is ERROR over the one before it, so the error is relative, and the number of
# buckets grows with the logarithm of the range: 285 for six decades.
_STEPS = math.ceil(math.log(CEILING / FLOOR) / math.log(1 + ERROR))
_BOUNDS = tuple(min(CEILING, FLOOR * (1 + ERROR) ** step) for step in range(_STEPS + 1))


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """Snapshot of a digest."""

    samples: int
    """In the window."""
    seconds: float | None
    """The percentile; None if there are too few samples."""


class LatencyDigest:
    """The ``quantile`` (0.95 for p95) of the latencies that came within the last ``window`` seconds.

    By nearest rank: the smallest latency that at least this share of the samples do not exceed, rounded up to its
    bucket's bound (see ERROR). Rounded up and not down, because it times hedges: more of them than the quantile stands
    for would be load that nobody asked for.

    The window slides in ``slices`` steps: a sample counts until its slice, which began up to ``window / slices``
    earlier, is ``window`` old. Memory is ``slices + 1`` lists of 285 counts whatever comes; adding and asking are O(1)
    on average, and a slice that drops out costs one pass over the buckets.

    Times are seconds of one clock that never goes back.
    """

    __slots__ = ("_count", "_oldest", "_place", "_quantile", "_slices", "_slides_at", "_sum", "_up_to", "_width")

    def __init__(self, quantile: float, *, window: float = 60.0, slices: int = 6) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"a quantile lies between 0 and 1, unlike {quantile}")
        if not 0 < window < math.inf or slices < 1:
            raise ValueError("a window has a length and at least one slice")
        self._quantile = quantile
        self._width = window / slices
        self._slices = [[0] * len(_BOUNDS) for _ in range(slices)]
        # The number of the oldest slice in the window, counted from time 0. Slice n stands at place n % slices.
        self._oldest = 1 - slices
        # When the newest slice is full.
        self._slides_at = self._width
        self._sum = [0] * len(_BOUNDS)
        self._count = 0
        # Where the percentile was when it was last asked for, and how many samples lie in the buckets up to there: the
        # next answer is a few steps away, and no pass over all of them.
        self._place = 0
        self._up_to = 0

    def add(self, now: float, seconds: float) -> None:
        """Count a latency of ``seconds`` that was known at ``now``."""
        if now >= self._slides_at:
            self._slide(now)
        bucket = bisect_left(_BOUNDS, seconds) if seconds < CEILING else len(_BOUNDS) - 1
        newest = self._oldest + len(self._slices) - 1
        self._slices[newest % len(self._slices)][bucket] += 1
        self._sum[bucket] += 1
        self._count += 1
        if bucket <= self._place:
            self._up_to += 1

    def percentile(self, now: float) -> float | None:
        """Seconds, or None if the window has fewer than SAMPLES_MIN samples."""
        if now >= self._slides_at:
            self._slide(now)
        if self._count < SAMPLES_MIN:
            return None
        rank = math.ceil(self._quantile * self._count)
        place, up_to, counts = self._place, self._up_to, self._sum
        while up_to < rank:
            place += 1
            up_to += counts[place]
        while up_to - counts[place] >= rank:
            up_to -= counts[place]
            place -= 1
        self._place, self._up_to = place, up_to
        return _BOUNDS[place]

    def statistics(self, now: float) -> LatencyStatistics:
        """A snapshot."""
        seconds = self.percentile(now)
        return LatencyStatistics(self._count, seconds)

    def _slide(self, now: float) -> None:
        """Let the slices go that are out of the window at ``now``."""
        slices = self._slices
        newest = math.floor(now / self._width)
        oldest = max(self._oldest, newest - len(slices) + 1)
        for number in range(self._oldest, min(oldest, self._oldest + len(slices))):
            place = number % len(slices)
            self._count -= sum(slices[place])
            self._sum = [left - lost for left, lost in zip(self._sum, slices[place], strict=True)]
            slices[place] = [0] * len(_BOUNDS)
        self._oldest = oldest
        self._slides_at = (oldest + len(slices)) * self._width
        self._place, self._up_to = 0, self._sum[0]
