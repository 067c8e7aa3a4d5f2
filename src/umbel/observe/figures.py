"""Figures: the values of all metrics of one process at one moment, and their sum over several processes.

The figures travel between processes as JSON, so they are plain data. ``Totals`` keeps what ended processes counted;
so the sum of a counter over all processes never falls while workers die and are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..core.statistics.histogram import Cells
from .catalogue import BY_NAME, WORKER_STALE, Merge, Type

SERIES_MAX = 50_000
"""The bound on the time series that ``Totals`` keeps; values of further ones are dropped and counted."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of ``Metric.labels``."""
Value = float | Cells
"""The value of a counter or a gauge, or the cells of a histogram (``core/statistics/histogram.py``)."""


class Exemplar(msgspec.Struct, frozen=True, array_like=True):
    """One request as an example of the values in a histogram's bucket."""

    bucket: int
    """The index of the bucket."""
    trace_id: str
    seconds: float
    """The counted value."""
    at: float
    """Seconds since the epoch."""


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The values of all metrics that one process has at one moment, with their exemplars."""

    process: str
    """The label ``worker``: the number of the slot, ``master``, or ``main`` for a process without a master."""
    pid: int
    values: Mapping[str, list[tuple[Labels, Value]]]
    """By name of the metric: the values, with the labels of each."""
    exemplars: Mapping[str, list[tuple[Labels, list[Exemplar]]]] = {}
    """By name of a histogram: the latest exemplar of each bucket that has one."""


Sums = dict[str, dict[Labels, Value]]
"""Values by metric and labels."""


def add(sums: Sums, values: Mapping[str, Iterable[tuple[Labels, Value]]], *, gauges: bool = True) -> int:
    """Add values to ``sums`` as the catalogue says; without ``gauges`` only those that never fall.

    Metrics that the catalogue does not have are skipped. Returns the number of values that were dropped because
    ``sums`` holds SERIES_MAX time series already.
    """
    held = sum(map(len, sums.values()))
    dropped = 0
    for name, samples in values.items():
        metric = BY_NAME.get(name)
        if metric is None or (metric.type is Type.GAUGE and not gauges):
            continue
        into = sums.setdefault(name, {})
        for labels, value in samples:
            before = into.get(labels)
            if before is None:
                if held >= SERIES_MAX:
                    dropped += 1
                    continue
                held += 1
                into[labels] = list(value) if isinstance(value, list) else value
            elif isinstance(before, list):
                if isinstance(value, list) and len(value) == len(before):
                    into[labels] = [one + other for one, other in zip(before, value, strict=True)]
            elif not isinstance(value, list):
                into[labels] = max(before, value) if metric.merge is Merge.MAX else before + value
    return dropped


class Totals:
    """What ended processes have counted: their counters and histograms."""

    def __init__(self) -> None:
        self._sums: Sums = {}
        self.dropped = 0
        """Values that were dropped because there were too many time series."""

    def add(self, figures: ProcessFigures) -> None:
        """Add the last figures of a process that has ended."""
        self.dropped += add(self._sums, figures.values, gauges=False)

    def figures(self) -> Mapping[str, list[tuple[Labels, Value]]]:
        """The values, as in ``ProcessFigures``."""
        return {name: list(values.items()) for name, values in self._sums.items()}


def stale(process: str, is_stale: bool) -> tuple[str, list[tuple[Labels, Value]]]:
    """The value of ``umbel_worker_stale`` for a process."""
    return WORKER_STALE.name, [((process,), float(is_stale))]
