"""The traffic of each route as plain data: rate, errors, partial answers, percentiles, own time, and its calls."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ...core.statistics.histogram import DURATIONS, OWN_TIMES, Cells
from .. import catalogue
from ..figures import Sums
from .window import Change, changed, percentiles, sum_of

ROUTES_MAX = 200
"""The bound on routes of an answer: those with the most requests of late."""
CALLS_MAX = 2000
"""The bound on the calls of all routes of an answer."""
CALL_OUTCOMES = ("ok", "partial", "failed", "skipped", "cancelled")


def routes_of(change: Change) -> dict[str, Any]:
    """The traffic of all routes.

    Returns:
        ``window_s``: the seconds of ``recent``; None: there is no earlier sample yet, and no ``recent``.
        ``routes``: the routes with the most requests of late first, ``ROUTES_MAX`` at most. Each has ``route`` (empty:
        no route matched), ``recent`` and ``total`` (since the start), and ``calls``. ``left_out``: how many routes are
        not in the list.

        ``recent`` and ``total`` have ``requests``, ``errors`` (a status of 500 and above), ``answers`` (composed ones),
        ``partial``, ``p50_ms``, ``p95_ms``, ``p99_ms`` and the same of the gateway's own share, ``own_p50_ms`` and so
        on. Each of the ``calls`` has ``call``, and in ``recent`` and ``total`` the number of calls by outcome.
    """
    total = _by_route(change.now, None)
    recent = None if change.before is None else _by_route(change.now, change.before)

    def busy(name: str) -> tuple[float, float, str]:
        late = 0 if recent is None else recent[name].requests
        return -late, -total[name].requests, name

    names = sorted(total, key=busy)
    routes, room = [], CALLS_MAX
    for name in names[:ROUTES_MAX]:
        own, late = total[name], None if recent is None else recent[name]
        calls = sorted(own.calls)[:room]
        room -= len(calls)
        routes.append(
            {
                "route": name,
                "recent": None if late is None else late.as_dict(),
                "total": own.as_dict(),
                "calls": [
                    {
                        "call": call,
                        "recent": None if late is None else dict(late.calls[call]),
                        "total": dict(own.calls[call]),
                        "kinds": dict(own.kinds[call]),
                    }
                    for call in calls
                ],
            }
        )
    window = None if change.seconds is None else round(change.seconds, 3)
    return {"window_s": window, "routes": routes, "left_out": max(0, len(names) - ROUTES_MAX)}


class _Traffic:
    """What was counted of one route."""

    def __init__(self) -> None:
        self.requests = self.errors = self.answers = self.partial = 0
        self.durations: list[Cells] = []
        self.own: list[Cells] = []
        self.calls: defaultdict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(CALL_OUTCOMES, 0))
        self.kinds: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """By call: the failures by kind."""

    def as_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("requests", "errors", "answers", "partial")}
        own = percentiles(sum_of(self.own), OWN_TIMES, "own_")
        return {**counts, **percentiles(sum_of(self.durations), DURATIONS), **own}


def _by_route(now: Sums, before: Sums | None) -> defaultdict[str, _Traffic]:
    """What was counted since ``before``; None: since the start. Routes without requests since then have zeros."""
    routes: defaultdict[str, _Traffic] = defaultdict(_Traffic)
    for (name, _, status), cells in changed(now, before, catalogue.SERVER_DURATION):
        if isinstance(cells, list):
            route, requests = routes[name], int(sum(cells[:-1]))
            route.requests += requests
            route.errors += requests if status >= "500" else 0
            route.durations.append(cells)
    for (name, outcome), count in changed(now, before, catalogue.ANSWERS):
        if not isinstance(count, list):
            routes[name].answers += int(count)
            routes[name].partial += int(count) if outcome == "partial" else 0
    for (name,), cells in changed(now, before, catalogue.OWN_SECONDS):
        if isinstance(cells, list):
            routes[name].own.append(cells)
    for (name, call, outcome, kind), count in changed(now, before, catalogue.CALLS):
        if not isinstance(count, list):
            counts = routes[name].calls[call]
            counts[outcome] = counts.get(outcome, 0) + int(count)
            if kind and count:
                kinds = routes[name].kinds[call]
                kinds[kind] = kinds.get(kind, 0) + int(count)
    return routes
