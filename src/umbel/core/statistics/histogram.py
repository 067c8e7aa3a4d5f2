"""Histograms of durations as plain lists, cheap enough for every request and every attempt.

The cells of a histogram are one list: the number of values per bucket, the last bucket without an upper bound, then
the sum of the values in seconds. A value is counted with ``cells[bisect_left(bounds, value)] += 1`` and
``cells[-1] += value``, written where it is counted: this enters one C function and no Python function. Readers in
other threads may see a value in its bucket and not yet in the sum.
"""

from __future__ import annotations

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Inclusive upper bounds in seconds for durations of requests: those of OpenTelemetry's HTTP metrics."""
OWN_TIMES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
"""Inclusive upper bounds in seconds for the gateway's own share of a duration."""

Cells = list[float]
"""The cells of one histogram."""


def new_cells(bounds: tuple[float, ...]) -> Cells:
    """Cells without a value, for the buckets of ``bounds``."""
    return [0] * (len(bounds) + 1) + [0.0]
