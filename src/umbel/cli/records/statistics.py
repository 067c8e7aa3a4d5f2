"""The statistics of a log: counts by level and status, a histogram of latencies, calls, dropped and missing records.

The figures of calls come from the records of requests, which name every call. So they are the same whatever calls have
records of their own. Only where no record of a request names calls, as in the combined format, the figures come from
the records of calls. Memory is bounded: latencies are counted in buckets, and tables have at most ``VALUES_MAX`` rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from ...core.failure_kinds import CUT
from .log_files import LogLine
from .printer import printable

BUCKETS_PER_DECADE = 10
"""The number of buckets for a factor of ten. A bucket ends 26 % above its beginning, which is the error of percentiles.
"""
VALUES_MAX = 1000
"""The bound on the values of ``--by``, and on the names of calls, that have rows of their own; further ones share one.
"""
_WITHOUT_KIND = frozenset({"ok", "partial", "skipped"})
"""The outcomes of calls that are no kinds of failures."""
CANCELLED = frozenset(map(str, CUT))
"""The outcomes of calls that ended because the client left, or because the answer was decided without them."""
NOT_FAILED = _WITHOUT_KIND | CANCELLED
"""The outcomes of calls that are no failures."""
NAME_CHARS_MAX = 60
"""The bound on a name in a table; ``…`` replaces the rest."""
NOT_COMBINED = "levels, durations, routes, calls and numbers"
"""What lines in the combined format do not have."""

_BAR = 40
_EMPTY_MAX = 3
"""The most empty rows in a row that the histogram of latencies has; one line stands for more."""
_OTHER = "(other)"
_NOT_OF_CALL = frozenset({"calls", "calls_total", "duration_ms", "kind", "outcome", "call", "level", "msg"})
"""The fields of a request's record that say nothing of its calls, or that a call has itself."""
_CALL = "call.end"
"""The event of the record of one call."""
_START = "request.start"
"""The event of the start of a stream; the figures of the request are those of its end."""
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
        """Return the percentiles and the maximum for ``--json``; nothing if no latency was counted."""
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {**{name: round(self.percentile(share), 3) for name, share in shares.items()}, "max": self.greatest}


class CallRow:
    """The figures of the calls of one name."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.attempts = 0
        self.latencies = LatencyHistogram()

    @property
    def failed(self) -> int:
        """The calls that failed."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in NOT_FAILED)

    @property
    def cancelled(self) -> int:
        """The calls that ended because of something else: see ``CANCELLED``."""
        return sum(self.outcomes[outcome] for outcome in CANCELLED)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {
            "calls": self.outcomes.total(),
            "failed": self.failed,
            "cancelled": self.cancelled,
            "attempts": self.attempts,
            "outcomes": dict(sorted(self.outcomes.items())),
            **self.latencies.as_dict(),
        }


class LogStatistics:
    """The statistics of a log, whose lines ``add`` counts one by one.

    Args:
        by: the field whose values get rows of their own; None: no rows.
    """

    def __init__(self, by: str | None) -> None:
        self.by = by
        self.records = 0
        self.combined = 0
        """The records in the combined format, which has not all figures."""
        self.calls: dict[str, CallRow] = {}
        """The figures of calls by name."""
        self.not_listed = 0
        """The calls that the records of their requests do not list."""
        self.note = ""
        """Where the figures come from, if that is not evident."""
        self.not_records = 0
        self.dropped = 0
        self._gaps = 0
        self.first = self.last = ""
        self.levels: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.latencies = LatencyHistogram()
        self.errors_are = "5xx"
        """What the errors of ``rows`` are: responses with a status of 500 or above, or failed calls."""
        self.rows: dict[str, tuple[Counter[str], LatencyHistogram]] = {}
        self.has_by = False
        """Whether any record has the field ``by``."""
        self._seqs: dict[tuple[Any, ...], int] = {}

    @property
    def is_combined(self) -> bool:
        """Whether all records have the combined format, so that losses are not known."""
        return 0 < self.records == self.combined

    @property
    def missing(self) -> int:
        """The number of sequence numbers that no record has, minus the records that ``log.dropped`` reports."""
        return max(0, self._gaps - self.dropped)

    def add(self, line: LogLine, *, figures: bool = True) -> None:
        """Count a line. ``figures``: also its latency, its row of ``--by`` and the calls that it names."""
        record = line.record
        if not record:
            self.not_records += 1
            return
        if record.get("event") == "log.dropped" and isinstance(record.get("count"), int):
            self.dropped += record["count"]
        self._check_sequence(record)
        self.records += 1
        self.combined += line.combined
        at = str(record.get("ts", ""))
        self.first, self.last = min(self.first or at, at), max(self.last, at)
        if not line.combined:
            self.levels[str(record.get("level", ""))] += 1
        status, millis = record.get("http.response.status_code"), record.get("duration_ms")
        if isinstance(status, int):
            self.statuses[status] += 1
        if not figures or record.get("event") == _START:
            return
        if isinstance(millis, int | float):
            self.latencies.add(millis)
        if self.by is not None:
            self._add_to_row(_find(record, self.by), isinstance(status, int) and status >= 500, millis)
        self._add_calls(record)

    def add_calls(self, line: LogLine) -> None:
        """Count the calls that the record of a request names, with their latencies and rows, and not the record."""
        self.errors_are = "failed"
        for call in self._add_calls(line.record):
            millis, outcome = call["duration_ms"], call["outcome"]
            if isinstance(millis, int | float):
                self.latencies.add(millis)
            if self.by is not None:
                self._add_to_row(_find(call, self.by), outcome not in NOT_FAILED, millis)

    def as_dict(self) -> dict[str, Any]:
        """Return all statistics for ``--json``."""
        result: dict[str, Any] = {
            "records": self.records,
            "first": self.first,
            "last": self.last,
            "levels": dict(self.levels),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "dropped": None if self.is_combined else self.dropped,
            "missing": None if self.is_combined else self.missing,
            "not_records": self.not_records,
        }
        if self.combined:
            result["combined"] = self.combined
        if self.note:
            result["note"] = self.note
        if self.latencies.count:
            result["duration_ms"] = self.latencies.as_dict()
        if self.calls:
            result["calls"] = {name: row.as_dict() for name, row in sorted(self.calls.items())}
            result["calls_not_listed"] = self.not_listed
        if self.by is not None:
            result["by"] = {
                name: {"records": counts["records"], "errors": counts["errors"], **latencies.as_dict()}
                for name, (counts, latencies) in self.rows.items()
            }
        return result

    def _add_calls(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Count the calls that a record names or is of; return each as a record with the request's fields."""
        calls = [_call_part(record)] if record.get("event") == _CALL else record.get("calls")
        if not isinstance(calls, list):
            return []
        request = {name: value for name, value in record.items() if name not in _NOT_OF_CALL}
        found: list[dict[str, Any]] = []
        for call in calls:
            if not isinstance(call, dict):
                continue
            name, outcome, attempts = str(call.get("name")), str(call.get("outcome")), call.get("attempts")
            millis = call.get("ms")
            found.append(request | {"call": name, "outcome": outcome, "duration_ms": millis})
            if outcome not in _WITHOUT_KIND:
                found[-1]["kind"] = outcome
            if name not in self.calls and len(self.calls) >= VALUES_MAX:
                name = _OTHER
            row = self.calls.setdefault(name, CallRow())
            row.outcomes[outcome if outcome in row.outcomes or len(row.outcomes) < VALUES_MAX else _OTHER] += 1
            row.attempts += attempts if isinstance(attempts, int) else 0
            if isinstance(millis, int | float):
                row.latencies.add(millis)
        total = record.get("calls_total")
        self.not_listed += max(0, total - len(calls)) if isinstance(total, int) else 0
        return found

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

    def _add_to_row(self, value: Any, failed: bool, millis: Any) -> None:
        self.has_by |= value is not _MISSING
        name = str(value) if isinstance(value, str | int | float) else "-"
        if name not in self.rows and len(self.rows) >= VALUES_MAX:
            name = _OTHER
        counts, latencies = self.rows.setdefault(name, (Counter(), LatencyHistogram()))
        counts["records"] += 1
        counts["errors"] += failed
        if isinstance(millis, int | float):
            latencies.add(millis)


def _call_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a request would have of the call that ``record`` is of."""
    attempts, state = record.get("attempts"), record.get("state")
    listed = len(attempts) if isinstance(attempts, list) else 0
    outcome = ("partial" if record.get("failed_items") else "ok") if state == "value" else record.get("kind") or state
    number = record.get("attempts_total") or listed
    return {"name": record.get("call"), "ms": record.get("duration_ms"), "outcome": outcome, "attempts": number}


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
    if statistics.note:
        yield f"note     {statistics.note}"
    lost = [
        f"{count:,} {word}"
        for count, word in ((statistics.dropped, "dropped"), (statistics.missing, "missing"))
        if count
    ]
    known = "not known" if statistics.is_combined else "none"
    yield f"lost     {' · '.join(lost) or known}" + (
        f" · {statistics.not_records:,} lines are no records" if statistics.not_records else ""
    )
    if statistics.combined:
        yield f"absent   {statistics.combined:,} lines in the combined format have no {NOT_COMBINED}"
    if statistics.levels or not statistics.combined:
        levels = " · ".join(f"{printable(name)} {count:,}" for name, count in statistics.levels.most_common())
        yield f"levels   {levels}"
    if statistics.statuses:
        yield "\nstatus"
        most = max(statistics.statuses.values())
        for status, count in sorted(statistics.statuses.items()):
            yield f"  {status:>6} {_bar(count, most)} {count:,}"
    if statistics.latencies.count:
        yield from _histogram(statistics.latencies)
    if statistics.calls:
        yield from _calls(statistics)
    if statistics.rows:
        yield f"\n{statistics.by}"
        yield f"  {'records':>10} {statistics.errors_are:>8} {'p50':>9} {'p99':>9}"
        for name, (counts, latencies) in sorted(statistics.rows.items(), key=lambda row: -row[1][0]["records"]):
            yield f"  {counts['records']:>10,} {counts['errors']:>8,} {_p50_p99(latencies)}  {_short(name)}"


def _calls(statistics: LogStatistics) -> Iterator[str]:
    yield "\ncalls"
    yield f"  {'calls':>10} {'failed':>8} {'cancelled':>9} {'attempts':>9} {'p50':>9} {'p99':>9}"
    for name, row in sorted(statistics.calls.items(), key=lambda each: (-each[1].outcomes.total(), each[0])):
        counts = f"{row.outcomes.total():>10,} {row.failed:>8,} {row.cancelled:>9,} {row.attempts:>9,}"
        yield f"  {counts} {_p50_p99(row.latencies)}  {_short(name)}"
    if statistics.not_listed:
        yield f"  {statistics.not_listed:>10,} more, which the records of their requests do not list"


def _short(name: str) -> str:
    """A name in a table: a handler may make names of calls from values of any length."""
    return printable(name if len(name) <= NAME_CHARS_MAX else name[:NAME_CHARS_MAX] + "…")


def _p50_p99(latencies: LatencyHistogram) -> str:
    shown = (_millis(latencies.percentile(share)) if latencies.count else "-" for share in (0.5, 0.99))
    return " ".join(f"{each:>9}" for each in shown)


def _histogram(latencies: LatencyHistogram) -> Iterator[str]:
    yield "\nlatency  " + " · ".join(f"{name} {_millis(value)}" for name, value in latencies.as_dict().items())
    most = max(latencies.buckets.values())
    every = range(min(latencies.buckets), max(latencies.buckets) + 1)
    for is_empty, group in groupby(every, key=lambda bucket: not latencies.buckets[bucket]):
        rows = [*group]
        if is_empty and len(rows) > _EMPTY_MAX:
            yield "  …"
            continue
        for bucket in rows:
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
