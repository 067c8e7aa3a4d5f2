"""The statistics of a log: counts by level and status, a histogram of latencies, dropped and missing records.

Memory is bounded: latencies are counted in buckets, and ``--by`` has at most ``VALUES_MAX`` rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .log_files import LogLine
from .printer import printable

BUCKETS_PER_DECADE = 10
"""The number of buckets for a factor of ten. A bucket ends 26 % above its beginning, which is the error of percentiles.
"""
VALUES_MAX = 1000
"""The bound on the values of ``--by`` that have rows of their own; further ones share one row."""

_BAR = 40
_OTHER = "(other)"
_MISSING = object()
"""The result of ``_find`` for a field that a record does not have."""


class LatencyHistogram:
    """A histogram of latencies in milliseconds, with logarithmic buckets."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.greatest = 0.0

    def add(self, millis: float) -> None:
        """Count one latency."""
        self.buckets[math.floor(math.log10(max(millis, 1e-3)) * BUCKETS_PER_DECADE)] += 1
        self.count += 1
        self.greatest = max(self.greatest, millis)

    def percentile(self, share: float) -> float:
        """Return the upper end of the bucket with the percentile ``share`` (0 to 1), at most the greatest latency."""
        owed = share * self.count
        for bucket in sorted(self.buckets):
            owed -= self.buckets[bucket]
            if owed <= 0:
                return min(self.greatest, 10 ** ((bucket + 1) / BUCKETS_PER_DECADE))
        return self.greatest

    def as_dict(self) -> dict[str, float]:
        """Return the percentiles and the maximum for ``--json``."""
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {**{name: round(self.percentile(share), 3) for name, share in shares.items()}, "max": self.greatest}


class LogStatistics:
    """The statistics of a log, whose lines ``add`` counts one by one.

    Args:
        by: the field whose values get rows of their own; None: no rows.
    """

    def __init__(self, by: str | None) -> None:
        self.by = by
        self.records = 0
        self.not_records = 0
        self.dropped = 0
        self._gaps = 0
        self.first = self.last = ""
        self.levels: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.latencies = LatencyHistogram()
        self.rows: dict[str, tuple[Counter[str], LatencyHistogram]] = {}
        self.has_by = False
        """Whether any record has the field ``by``."""
        self._seqs: dict[tuple[Any, ...], int] = {}

    @property
    def missing(self) -> int:
        """The number of sequence numbers that no record has, minus the records that ``log.dropped`` reports."""
        return max(0, self._gaps - self.dropped)

    def add(self, line: LogLine) -> None:
        """Count a line."""
        record = line.record
        if not record:
            self.not_records += 1
            return
        if record.get("event") == "log.dropped" and isinstance(record.get("count"), int):
            self.dropped += record["count"]
        self._check_sequence(record)
        self.records += 1
        at = str(record.get("ts", ""))
        self.first, self.last = min(self.first or at, at), max(self.last, at)
        self.levels[str(record.get("level", ""))] += 1
        status, millis = record.get("http.response.status_code"), record.get("duration_ms")
        if isinstance(status, int):
            self.statuses[status] += 1
        if isinstance(millis, int | float):
            self.latencies.add(millis)
        if self.by is not None:
            self._add_to_row(_find(record, self.by), status, millis)

    def as_dict(self) -> dict[str, Any]:
        """Return all statistics for ``--json``."""
        result: dict[str, Any] = {
            "records": self.records,
            "first": self.first,
            "last": self.last,
            "levels": dict(self.levels),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "dropped": self.dropped,
            "missing": self.missing,
            "not_records": self.not_records,
        }
        if self.latencies.count:
            result["duration_ms"] = self.latencies.as_dict()
        if self.by is not None:
            result["by"] = {
                name: {"records": counts["records"], "errors": counts["errors"], **latencies.as_dict()}
                for name, (counts, latencies) in self.rows.items()
            }
        return result

    def _check_sequence(self, record: dict[str, Any]) -> None:
        """Count the gap before a record: each sequence number that its process skipped is a record that was lost."""
        seq = record.get("seq")
        if not isinstance(seq, int):
            return
        writer = (record.get("host.name"), record.get("process.pid"))
        expected = self._seqs.get(writer, seq - 1) + 1
        if seq == 1 or expected == 1:
            expected = seq  # The first record of another process with the same pid.
        if seq > expected:
            self._gaps += seq - expected
        elif seq < expected:
            self._gaps = max(0, self._gaps - 1)  # Out of order: it was counted as a gap before.
        self._seqs[writer] = seq if seq == 1 else max(seq, expected - 1)

    def _add_to_row(self, value: Any, status: Any, millis: Any) -> None:
        self.has_by |= value is not _MISSING
        name = str(value) if isinstance(value, str | int | float) else "-"
        if name not in self.rows and len(self.rows) >= VALUES_MAX:
            name = _OTHER
        counts, latencies = self.rows.setdefault(name, (Counter(), LatencyHistogram()))
        counts["records"] += 1
        counts["errors"] += isinstance(status, int) and status >= 500
        if isinstance(millis, int | float):
            latencies.add(millis)


def _find(record: Mapping[str, Any], field: str) -> Any:
    """Return a field's value, by its whole name or as a member of an object (``fields.line``)."""
    if field in record:
        return record[field]
    outer, dot, inner = field.partition(".")
    if dot and isinstance(record.get(outer), Mapping):
        return _find(record[outer], inner)
    return _MISSING


def rendered(statistics: LogStatistics) -> str:
    """Return the statistics as text for a terminal."""
    return "\n".join(_lines(statistics))


def _lines(statistics: LogStatistics) -> Iterator[str]:
    span = f", {statistics.first} to {statistics.last}" if statistics.records else ""
    yield f"{statistics.records:,} records{span}"
    lost = [
        f"{count:,} {word}"
        for count, word in ((statistics.dropped, "dropped"), (statistics.missing, "missing"))
        if count
    ]
    yield f"lost     {' · '.join(lost) or 'none'}" + (
        f" · {statistics.not_records:,} lines are no records" if statistics.not_records else ""
    )
    yield f"levels   {' · '.join(f'{printable(name)} {count:,}' for name, count in statistics.levels.most_common())}"
    if statistics.statuses:
        yield "\nstatus"
        most = max(statistics.statuses.values())
        for status, count in sorted(statistics.statuses.items()):
            yield f"  {status:>6} {_bar(count, most)} {count:,}"
    if statistics.latencies.count:
        yield from _histogram(statistics.latencies)
    if statistics.rows:
        yield f"\n{statistics.by}"
        yield f"  {'records':>10} {'5xx':>8} {'p50':>9} {'p99':>9}"
        for name, (counts, latencies) in sorted(statistics.rows.items(), key=lambda row: -row[1][0]["records"]):
            p50, p99 = (_millis(latencies.percentile(share)) if latencies.count else "-" for share in (0.5, 0.99))
            yield f"  {counts['records']:>10,} {counts['errors']:>8,} {p50:>9} {p99:>9}  {printable(name)}"


def _histogram(latencies: LatencyHistogram) -> Iterator[str]:
    yield "\nlatency  " + " · ".join(f"{name} {_millis(value)}" for name, value in latencies.as_dict().items())
    most = max(latencies.buckets.values())
    for bucket in range(min(latencies.buckets), max(latencies.buckets) + 1):
        upper = 10 ** ((bucket + 1) / BUCKETS_PER_DECADE)
        count = latencies.buckets[bucket]
        yield f"  ≤ {_millis(upper):>8} {_bar(count, most)} {count or ''}".rstrip()


def _bar(count: int, most: int) -> str:
    eighths = math.ceil(count / most * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(_BAR)


def _millis(millis: float) -> str:
    if millis >= 1000:
        return f"{millis / 1000:.3g}s"
    return f"{millis:.3g}ms" if millis >= 1 else f"{millis * 1000:.3g}us"
