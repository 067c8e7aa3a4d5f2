"""The text that a scraper reads: OpenMetrics, or the classic text format of Prometheus.

Both formats have one line per time series; a histogram has one per bucket, and one each for its count and its sum. They
differ in the names of counters in the lines about a metric, in what is escaped there, and in the last line, and only
OpenMetrics has exemplars. Label names, bounds and names of metrics come from the catalogue and need no escaping.

Sources: https://prometheus.io/docs/specs/om/open_metrics_spec/ and
https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import trio

from ..admin.source import Metrics
from ..core.statistics.histogram import Cells
from .catalogue import METRICS, Metric
from .figures import Exemplar, Labels, ProcessFigures, Sums, add

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The media type of OpenMetrics."""
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the classic text format."""

_Exemplars = dict[tuple[str, Labels], dict[int, Exemplar]]


async def metrics_of(figures: Sequence[ProcessFigures], *, openmetrics: bool) -> Metrics:
    """Render as ``render`` in a thread; one at a time, also if scrapes are abandoned by a cancel."""
    text = await trio.to_thread.run_sync(
        lambda: render(figures, openmetrics=openmetrics), abandon_on_cancel=True, limiter=_limiter()
    )
    return Metrics(OPENMETRICS if openmetrics else CLASSIC, text)


_rendering: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("observe_rendering")


def _limiter() -> trio.CapacityLimiter:
    try:
        return _rendering.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _rendering.set(limiter)
        return limiter


def render(figures: Sequence[ProcessFigures], *, openmetrics: bool) -> bytes:
    """Render the sum of the figures of several processes; metrics without a value are named too.

    It takes some microseconds per time series, so it is called in a thread.
    """
    sums: Sums = {}
    for each in figures:
        add(sums, each.values)
    exemplars = _latest_exemplars(figures) if openmetrics else {}
    lines: list[str] = []
    for metric in METRICS:
        lines += _about(metric, openmetrics=openmetrics)
        for labels, value in sums.get(metric.name, {}).items():
            if isinstance(value, list):
                lines += _histogram(metric, labels, value, exemplars.get((metric.name, labels), {}))
            else:
                lines.append(f"{metric.name}{_braces(_pairs(metric, labels))} {_number(value)}")
    if openmetrics:
        lines.append("# EOF")
    lines.append("")
    # Lone surrogates cannot be encoded; no configured name has them, but a scrape must not fail for one.
    return "\n".join(lines).encode("utf-8", "replace")


def _latest_exemplars(figures: Sequence[ProcessFigures]) -> _Exemplars:
    """Of each bucket of each time series the latest exemplar of all processes."""
    latest: _Exemplars = {}
    for each in figures:
        for name, found in each.exemplars.items():
            for labels, exemplars in found:
                kept = latest.setdefault((name, labels), {})
                for exemplar in exemplars:
                    if exemplar.bucket not in kept or kept[exemplar.bucket].at < exemplar.at:
                        kept[exemplar.bucket] = exemplar
    return latest


def _about(metric: Metric, *, openmetrics: bool) -> tuple[str, str]:
    """The lines about a metric: its meaning and its type."""
    if openmetrics:
        name, meaning = metric.name.removesuffix("_total"), _quoted(metric.meaning)
    else:
        name, meaning = metric.name, _one_line(metric.meaning)
    return f"# HELP {name} {meaning}", f"# TYPE {name} {metric.type}"


def _histogram(metric: Metric, labels: Labels, cells: Cells, exemplars: dict[int, Exemplar]) -> list[str]:
    """The lines of one histogram: its cumulative buckets, the number of its values and their sum."""
    pairs = _pairs(metric, labels)
    numbers = [_number(total) for total in accumulate(cells[:-1])]
    count = numbers[-1]
    for bucket, exemplar in exemplars.items():
        named = _quoted(exemplar.trace_id)
        numbers[bucket] += f' # {{trace_id="{named}"}} {_number(exemplar.seconds)} {_number(exemplar.at)}'
    start = f"{metric.name}_bucket{{{pairs}," if pairs else f"{metric.name}_bucket{{"
    bounds = (*metric.bounds, "+Inf")
    lines = [f'{start}le="{bound}"}} {number}' for bound, number in zip(bounds, numbers, strict=True)]
    braces = _braces(pairs)
    return [*lines, f"{metric.name}_count{braces} {count}", f"{metric.name}_sum{braces} {_number(cells[-1])}"]


def _pairs(metric: Metric, labels: Labels) -> str:
    """The names and values of the labels as they stand between braces."""
    return ",".join([f'{name}="{_quoted(value)}"' for name, value in zip(metric.labels, labels, strict=True)])


def _quoted(text: str) -> str:
    return _one_line(text).replace('"', r"\"")


def _one_line(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _braces(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    """A number as both formats spell it. Python's ``inf`` and ``nan`` are read in any case by their parsers."""
    return repr(float(value))
