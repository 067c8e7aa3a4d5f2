"""A quantile of the latencies in a sliding window, in bounded memory."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

FLOOR = 0.001
"""Upper bound of the lowest bucket in seconds. A shorter hedge delay would hedge every call."""
CEILING = 1000.0
"""Upper bound of the highest bucket in seconds."""
ERROR = 0.05
"""Relative error between FLOOR and CEILING: the result is at least the true percentile, and at most this share above
it."""
SAMPLES_MIN = 100
"""Number of samples in the window below which there is no percentile."""

# Upper bounds of the buckets. Each is ERROR larger than the one before, so the error is relative, and the number of
# buckets grows with the logarithm of the range: 285 for six decades.
_STEPS = math.ceil(math.log(CEILING / FLOOR) / math.log(1 + ERROR))
_BOUNDS = tuple(min(CEILING, FLOOR * (1 + ERROR) ** step) for step in range(_STEPS + 1))


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """A snapshot of recent latencies."""

    samples: int
    """Number of samples in the window."""
    seconds: float | None
    """The percentile; None with too few samples."""


class LatencyDigest:
    """An estimate of the ``quantile`` (0.95 for p95) of the latencies of the last ``window`` seconds.

    The percentile is by nearest rank: the smallest latency that at least this share of the samples do not exceed. The
    result is rounded up to the bound of its bucket (see ERROR). Rounding down would make more hedges than the quantile
    permits.

    The window consists of ``slices`` slices of ``window / slices`` seconds. A sample counts until the beginning of its
    slice is ``window`` seconds old. Memory is ``slices + 1`` lists of 285 counts. ``add`` and ``percentile`` take
    constant time on average; a slice that leaves the window costs one pass over the buckets.

    Args:
        quantile: above 0 and below 1.
        window: seconds.
        slices: number of parts of the window.

    Raises:
        ValueError: a number is out of range.
    """

    __slots__ = ("_count", "_oldest", "_place", "_quantile", "_slices", "_slides_at", "_sum", "_up_to", "_width")

    def __init__(self, quantile: float, *, window: float = 60.0, slices: int = 6) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"a quantile must be between 0 and 1, not {quantile}")
        if not 0 < window < math.inf or slices < 1:
            raise ValueError("window must be a finite time above 0, and slices at least 1")
        self._quantile = quantile
        self._width = window / slices
        self._slices = [[0] * len(_BOUNDS) for _ in range(slices)]
        # Number of the oldest slice in the window, counted from time 0. Slice n has the index n % slices.
        self._oldest = 1 - slices
        # Time at which the newest slice ends.
        self._slides_at = self._width
        self._sum = [0] * len(_BOUNDS)
        self._count = 0
        # Bucket of the latest percentile, and the number of samples up to and including it. The next percentile is
        # usually a few buckets away, so the search begins here.
        self._place = 0
        self._up_to = 0

    def add(self, now: float, seconds: float) -> None:
        """Add a latency of ``seconds``, observed at ``now``."""
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
        """The percentile in seconds; None if the window has fewer than SAMPLES_MIN samples."""
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
        """Drop the slices that are out of the window at ``now``."""
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
