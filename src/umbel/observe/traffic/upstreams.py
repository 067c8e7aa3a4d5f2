"""The state and the traffic of each upstream as plain data, over all processes and per process.

Rates, counts and percentiles come from the figures, which are summed over all processes. What the figures do not have
(the attempts in flight of a replica, why it is out, what a breaker has seen) each process tells by the snapshot
``Client.statistics()``. Such a state is never summed where a sum would have no meaning: a breaker, an ejection and a
health check are of one process, so they are counted or named per process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ...core.statistics.histogram import DURATIONS, Cells
from .. import catalogue
from ..figures import Sums
from .window import Change, changed, percentiles, sum_of

Snapshots = Mapping[str, Mapping[str, Any]]
"""The snapshots of the upstreams of one process: ``ClientStatistics`` as dictionaries, by name of the upstream."""

UPSTREAMS_MAX = 500
"""The bound on upstreams of an answer, by name."""
REPLICAS_MAX = 100
"""The bound on replicas of an upstream in an answer."""
_WORST = ("open", "half-open", "closed")


def upstreams_of(change: Change, processes: Mapping[str, Snapshots | None]) -> dict[str, Any]:
    """The upstreams, in the order of their names.

    Args:
        change: the figures.
        processes: the snapshots by name of the process; None: it has not answered.

    Returns:
        ``window_s``: as in ``routes_of``. ``silent``: the processes that have not answered. ``left_out``: how many
        upstreams are not in the list. ``limits``: of each limit ``name``, ``waiting`` (calls) and ``delayed`` (calls
        that had to wait). ``upstreams``: of each

        - ``name``; ``recent`` and ``total``: ``attempts`` by cause, ``answered`` (attempts that ended by themselves),
          ``errors`` (those of them with no response or a status of 500 and above), ``p50_ms``, ``p95_ms``, ``p99_ms``;
        - ``bulkhead``: ``in_use``, ``waiting`` and ``limit`` (calls), ``streams`` (open), ``budget``: ``left`` and
          ``denied``, ``pool``: connections by state; all summed over the processes;
        - ``breaker``: the worst state of any process; None: it has none;
        - ``replicas``: of each ``name``, ``recent`` and ``total`` as above without ``attempts``, ``in_flight``, and
          ``ejected`` and ``down``: the processes for which it is;
        - ``processes``: of each process ``process``, ``breaker`` with its state, ``requests``, ``failures``, ``opened``
          and ``refused``, ``in_use``, ``waiting``, ``limit``, ``is_learned`` (the limit), ``stalled``, ``retries``,
          ``hedges``, ``hedges_won``, ``ejections``.
    """
    snapshots = {name: each for name, each in processes.items() if each is not None}
    names = sorted({*_names(change.now), *(name for each in snapshots.values() for name in each)})
    total = _by_upstream(change.now, None)
    recent = None if change.before is None else _by_upstream(change.now, change.before)
    gauges = _Gauges(change.now)
    return {
        "window_s": None if change.seconds is None else round(change.seconds, 3),
        "upstreams": [
            _upstream(name, total[name], None if recent is None else recent[name], gauges, snapshots)
            for name in names[:UPSTREAMS_MAX]
        ],
        "limits": gauges.limits(),
        "silent": [name for name, each in processes.items() if each is None],
        "left_out": max(0, len(names) - UPSTREAMS_MAX),
    }


class _Attempts:
    """What was counted of the attempts at one upstream."""

    def __init__(self) -> None:
        self.causes: dict[str, int] = {}
        self.cells: list[Cells] = []
        self.errors = 0
        self.replicas: defaultdict[str, _Attempts] = defaultdict(_Attempts)

    def add(self, status: str, cells: Cells) -> None:
        self.cells.append(cells)
        if not status or status >= "500":
            self.errors += int(sum(cells[:-1]))

    def as_dict(self) -> dict[str, Any]:
        cells = sum_of(self.cells)
        answered = 0 if cells is None else int(sum(cells[:-1]))
        return {"answered": answered, "errors": self.errors, **percentiles(cells, DURATIONS)}

    def with_causes(self) -> dict[str, Any]:
        return {"attempts": self.causes, **self.as_dict()}


def _names(sums: Sums) -> set[str]:
    metrics = (catalogue.CLIENT_DURATION, catalogue.ATTEMPTS, catalogue.BULKHEAD_LIMIT)
    return {labels[0] for metric in metrics for labels in sums.get(metric.name, {})}


def _by_upstream(now: Sums, before: Sums | None) -> defaultdict[str, _Attempts]:
    upstreams: defaultdict[str, _Attempts] = defaultdict(_Attempts)
    for (name, replica, status), cells in changed(now, before, catalogue.CLIENT_DURATION):
        if isinstance(cells, list):
            upstreams[name].add(status, cells)
            upstreams[name].replicas[replica].add(status, cells)
    for (name, cause), count in changed(now, before, catalogue.ATTEMPTS):
        if not isinstance(count, list):
            upstreams[name].causes[cause] = int(count)
    return upstreams


class _Gauges:
    """The present values of the upstreams and limits."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def one(self, metric: catalogue.Metric, *labels: str) -> float:
        value = self._sums.get(metric.name, {}).get(labels, 0)
        return 0 if isinstance(value, list) else round(value, 3)

    def limits(self) -> list[dict[str, Any]]:
        names = sorted(labels[0] for labels in self._sums.get(catalogue.LIMIT_WAITING.name, {}))
        waiting, delayed = catalogue.LIMIT_WAITING, catalogue.LIMIT_DELAYED
        return [
            {"name": name, "waiting": self.one(waiting, name), "delayed": self.one(delayed, name)} for name in names
        ]

    def of_upstream(self, name: str) -> dict[str, Any]:
        return {
            "bulkhead": {
                "in_use": self.one(catalogue.BULKHEAD_IN_USE, name),
                "waiting": self.one(catalogue.BULKHEAD_WAITING, name),
                "limit": self.one(catalogue.BULKHEAD_LIMIT, name),
            },
            "streams": self.one(catalogue.UPSTREAM_STREAMS, name),
            "budget": {
                "left": self.one(catalogue.BUDGET_LEFT, name),
                "denied": self.one(catalogue.BUDGET_DENIED, name),
            },
            "pool": {
                state: self.one(catalogue.POOL_CONNECTIONS, name, state) for state in ("connecting", "active", "idle")
            },
        }


def _upstream(
    name: str, total: _Attempts, recent: _Attempts | None, gauges: _Gauges, snapshots: Mapping[str, Snapshots]
) -> dict[str, Any]:
    own = {process: each[name] for process, each in snapshots.items() if name in each}
    breakers = {str(each["breaker"]["state"]) for each in own.values() if each["breaker"] is not None}
    return {
        "name": name,
        "recent": None if recent is None else recent.with_causes(),
        "total": total.with_causes(),
        **gauges.of_upstream(name),
        "breaker": next((state for state in _WORST if state in breakers), None),
        "replicas": _replicas(total, recent, own),
        "processes": [_process(process, each) for process, each in own.items()],
    }


def _replicas(total: _Attempts, recent: _Attempts | None, own: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The replicas of the present sets, and none that have left."""
    found: dict[str, dict[str, Any]] = {}
    for process, snapshot in own.items():
        for each in snapshot["balance"]["replicas"]:
            name = each["name"]
            state = found.setdefault(name, {"name": name, "in_flight": 0, "ejected": [], "down": []})
            state["in_flight"] += each["in_flight"]
            if each["ejected_for"] > 0:
                state["ejected"].append({"process": process, "for_s": round(each["ejected_for"], 1)})
            if not each["up"]:
                state["down"].append(process)
    for name, state in found.items():
        state["recent"] = None if recent is None else recent.replicas[name].as_dict()
        state["total"] = total.replicas[name].as_dict()
    return list(found.values())[:REPLICAS_MAX]


def _process(process: str, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    bulkhead, breaker = snapshot["bulkhead"], snapshot["breaker"]
    return {
        "process": process,
        "breaker": None if breaker is None else {**breaker, "state": str(breaker["state"])},
        "in_use": bulkhead["in_flight"],
        "waiting": bulkhead["waiting"],
        "limit": bulkhead["capacity"],
        "is_learned": bulkhead["limit"] is not None,
        "stalled": bulkhead["stalled"],
        "retries": snapshot["retry"]["retries"],
        "hedges": snapshot["hedge"]["hedges"],
        "hedges_won": snapshot["hedge"]["won"],
        "ejections": snapshot["balance"]["ejections"],
    }
