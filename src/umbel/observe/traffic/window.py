"""Differences between the figures of now and those of some seconds ago, and percentiles of histograms.

Theory
------
The figures only count up (``figures.py``), so what happened in the last seconds is the difference between two samples.
Samples are taken only while somebody looks. Three are held: the *base*, the *next base*, and the present one. When the
next base is ``STEP_S`` old, it becomes the base, and the present sample becomes the next base. So with a sample every
second a difference is over ``STEP_S`` to twice ``STEP_S``, and the memory is that of two samples, not of ten.

A base that is older than ``OLD_S`` is dropped: nobody has looked for a while, and a rate over that time would pass for
that of the last seconds. Then there is no difference until the next sample.

Percentiles are interpolated within a bucket, as ``histogram_quantile`` of Prometheus does: the values of a bucket are
taken as evenly spread over it. The sum of the histograms of several processes is the histogram of all their requests,
so the percentiles over all workers are as exact as those of one. A percentile in the last bucket, which has no upper
bound, is the bound below it: "at least".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...core.statistics.histogram import Cells
from .. import catalogue
from ..catalogue import Metric
from ..figures import Labels, ProcessFigures, Sums, add

STEP_S = 5.0
"""The least seconds of a difference, once there are enough samples."""
OLD_S = 30.0
"""The age in seconds at which a base is dropped."""
USED = tuple(
    metric.name
    for metric in (
        catalogue.SERVER_DURATION,
        catalogue.ANSWERS,
        catalogue.CALLS,
        catalogue.OWN_SECONDS,
        catalogue.CLIENT_DURATION,
        catalogue.ATTEMPTS,
        catalogue.BULKHEAD_IN_USE,
        catalogue.BULKHEAD_WAITING,
        catalogue.BULKHEAD_LIMIT,
        catalogue.UPSTREAM_STREAMS,
        catalogue.BUDGET_LEFT,
        catalogue.BUDGET_DENIED,
        catalogue.POOL_CONNECTIONS,
        catalogue.REPLICA_EJECTED,
        catalogue.LIMIT_WAITING,
        catalogue.LIMIT_DELAYED,
    )
)
"""The metrics of which samples are made."""


class Sample(NamedTuple):
    """The sums of all processes at one moment."""

    at: float
    sums: Sums


class Change(NamedTuple):
    """Two samples: what was counted since the start, and before the last seconds."""

    now: Sums
    before: Sums | None
    """None: there is no base."""
    seconds: float | None
    """The time between the two; None: there is no base."""


class FiguresWindow:
    """The samples of one source of figures; see the module."""

    def __init__(self) -> None:
        self._base: Sample | None = None
        self._next: Sample | None = None

    def change(self, now: float, figures: Sequence[ProcessFigures]) -> Change:
        """Take a sample at ``now`` (seconds of any monotonic clock); return it with the base."""
        sums: Sums = {}
        for each in figures:
            add(sums, {name: each.values[name] for name in USED if name in each.values})
        present = Sample(now, sums)
        if self._next is not None and now - self._next.at > OLD_S:
            self._base = self._next = None
        if self._next is None:
            self._next = present
        elif now - self._next.at >= STEP_S:
            self._base, self._next = self._next, present
        base = self._base or self._next
        if base is present or now <= base.at:
            return Change(sums, None, None)
        return Change(sums, base.sums, now - base.at)


def since(now: Cells, before: object) -> Cells:
    """The histogram of what was counted since ``before``; of everything, if ``before`` is no histogram like it."""
    if not isinstance(before, list) or len(before) != len(now):
        return list(now)
    return [max(0, one - other) for one, other in zip(now, before, strict=True)]


def changed(now: Sums, before: Sums | None, metric: Metric) -> list[tuple[Labels, float | Cells]]:
    """The values of a metric with their labels: what was counted since ``before``; None: since the start."""
    earlier = {} if before is None else before.get(metric.name, {})
    found: list[tuple[Labels, float | Cells]] = []
    for labels, value in now.get(metric.name, {}).items():
        old = earlier.get(labels)
        if isinstance(value, list):
            found.append((labels, since(value, old)))
        else:
            found.append((labels, max(0, value - (old if isinstance(old, int | float) else 0))))
    return found


def sum_of(histograms: Iterable[Cells]) -> Cells | None:
    """The sum of histograms with equal buckets; None: there are none."""
    total: Cells | None = None
    for cells in histograms:
        total = list(cells) if total is None else [one + other for one, other in zip(total, cells, strict=True)]
    return total


def quantile(cells: Cells | None, bounds: Sequence[float], share: float) -> float | None:
    """The value in seconds that the ``share`` of the values do not exceed, interpolated; None without values."""
    count = 0 if cells is None else sum(cells[:-1])
    if cells is None or not count:
        return None
    rank, below, lower = share * count, 0.0, 0.0
    for upper, inside in zip(bounds, cells, strict=False):
        if inside and below + inside >= rank:
            return lower + (upper - lower) * max(0.0, rank - below) / inside
        below += inside
        lower = upper
    return bounds[-1]


def percentiles(cells: Cells | None, bounds: Sequence[float], prefix: str = "") -> Mapping[str, float | None]:
    """The percentiles of a histogram in milliseconds: ``p50_ms``, ``p95_ms`` and ``p99_ms``; None without values."""
    found = {share: quantile(cells, bounds, share / 100) for share in (50, 95, 99)}
    return {f"{prefix}p{share}_ms": None if each is None else round(each * 1000, 3) for share, each in found.items()}
