"""The text that a scraper reads: OpenMetrics, or the classic text format of Prometheus.

``prometheus_client`` renders it from a custom collector, without its own counters and its multi-process files.
OpenMetrics has exemplars; the classic format has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.histogram import Cells
from .catalogue import METRICS, Metric, Type
from .figures import Exemplar, Labels, ProcessFigures, Sums, Value, add

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.samples import Exemplar as ShownExemplar

    _Bucket = tuple[str, float] | tuple[str, float, ShownExemplar]

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The media type of OpenMetrics (https://prometheus.io/docs/specs/om/open_metrics_spec/)."""
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the classic text format."""

_Exemplars = dict[tuple[str, Labels], dict[int, Exemplar]]


def render(figures: Sequence[ProcessFigures], *, openmetrics: bool) -> bytes:
    """Render the sum of the figures of several processes.

    It takes some 3 µs per line, so it is called in a thread.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest as classic
    from prometheus_client.openmetrics.exposition import ALLOWUTF8, generate_latest

    # No name needs escaping. The default would search each character of each label name, which doubles the time.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    if openmetrics:
        text: bytes = generate_latest(registry, escaping=ALLOWUTF8)  # type: ignore[no-untyped-call]
        return text
    return classic(registry, escaping=ALLOWUTF8)


class _Collector:
    """Custom collector of ``prometheus_client``: yields one family per metric of the catalogue, also empty ones."""

    def __init__(self, figures: Sequence[ProcessFigures]) -> None:
        self._sums: Sums = {}
        self._exemplars: _Exemplars = {}
        for each in figures:
            add(self._sums, each.values)
            for name, found in each.exemplars.items():
                for labels, exemplars in found:
                    self._keep_latest(name, labels, exemplars)

    def _keep_latest(self, name: str, labels: Labels, exemplars: Sequence[Exemplar]) -> None:
        kept = self._exemplars.setdefault((name, labels), {})
        for exemplar in exemplars:
            if exemplar.bucket not in kept or kept[exemplar.bucket].at < exemplar.at:
                kept[exemplar.bucket] = exemplar

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        for metric in METRICS:
            yield self._family(metric, self._sums.get(metric.name, {}))

    def _family(self, metric: Metric, values: dict[Labels, Value]) -> Family:
        from prometheus_client import core

        if metric.type is Type.HISTOGRAM:
            family = core.HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            for labels, cells in values.items():
                assert isinstance(cells, list)
                exemplars = self._exemplars.get((metric.name, labels), {})
                family.add_metric(labels, _buckets(metric.bounds, cells, exemplars), cells[-1])
            return family
        made = core.CounterMetricFamily if metric.type is Type.COUNTER else core.GaugeMetricFamily
        simple = made(metric.name, metric.meaning, labels=metric.labels)
        for labels, value in values.items():
            assert not isinstance(value, list)
            simple.add_metric(labels, value)
        return simple


def _buckets(bounds: Sequence[float], cells: Cells, exemplars: dict[int, Exemplar]) -> list[_Bucket]:
    """The cumulative buckets, each with its upper bound and its exemplar."""
    from prometheus_client.samples import Exemplar as RenderedExemplar

    buckets: list[_Bucket] = []
    total = 0.0
    for index, bound in enumerate([*map(str, bounds), "+Inf"]):
        total += cells[index]
        found = exemplars.get(index)
        if found is None:
            buckets.append((bound, total))
        else:
            buckets.append((bound, total, RenderedExemplar({"trace_id": found.trace_id}, found.seconds, found.at)))
    return buckets
