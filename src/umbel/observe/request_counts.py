"""Counting of requests and their calls: a recorder that counts each request and passes every event on.

Each request has exactly one ``RequestEnded``, whoever ended it, so it is counted exactly once. Counting is a part of
every request: it enters two Python functions, however many calls the request has, and allocates one tuple.

Bounds. Routes come from the configuration and the code. The methods of RFC 9110 and RFC 5789 are counted by name,
others as ``_OTHER``. Names of calls come from the configuration, but a handler may make them from values; beyond
CALLS_MAX names of a route they are counted as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from time import time
from typing import Any

import trio

from ..core.events import Event, Recorder, RequestEnded
from ..core.histogram import DURATIONS, OWN_TIMES, Cells, new_cells
from ..core.model import Outcome
from .catalogue import ANSWERS, CALLS, OWN_SECONDS, SERVER_DURATION
from .figures import Exemplar, Labels, Value

CALLS_MAX = 256
"""The bound on names of calls that are counted apart, per route."""
ROUTES_MAX = 10_000
"""The bound on routes that are counted apart; a process that registers more counts the others as ``other``."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER, OTHER_METHOD = "other", "_OTHER"

_Durations = tuple[Cells, dict[int, tuple[str, float, float]]]
"""A histogram, and for each bucket the trace id, the duration and the end (trio's clock) of its latest request."""


class _Route:
    """The counts of one route."""

    __slots__ = ("answers", "calls", "durations", "name", "ok", "ok_labels", "own")

    def __init__(self, name: str) -> None:
        self.name = name
        self.durations: dict[tuple[str, int], _Durations] = {}
        """By method and status."""
        self.own: Cells = new_cells(OWN_TIMES)
        self.answers = {"complete": 0, "partial": 0, "failed": 0}
        self.ok: dict[str, int] = {}
        """Calls that succeeded as a whole, by name."""
        self.ok_labels: list[Labels] = []
        """The labels of ``ok``, in its order: a route may have many calls, and they are collected in one step."""
        self.calls: dict[tuple[str, str, str], int] = {}
        """The other calls, by name, outcome and kind."""


class CountingRecorder:
    """Counts requests, and passes every event on to another recorder.

    Attributes that this class does not have are those of the other recorder (``reopen``, ``flush``, ``statistics``).

    Args:
        recorder: takes all events.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.inner = recorder
        """The recorder that takes all events."""
        self.takes_attempts: bool = getattr(recorder, "takes_attempts", True)
        self.slow_call: float = getattr(recorder, "slow_call", 0.0)
        self.takes_heads: bool = getattr(recorder, "takes_heads", False)
        self.counted = 0
        """The number of counted requests."""
        self._record = recorder.record
        self._routes: dict[str, _Route] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def record(self, event: Event) -> None:
        """Count a request that has ended; pass on any event. As quick as the other recorder, and never raises."""
        if type(event) is RequestEnded:
            self._count(event)
        self._record(event)

    def _count(self, event: RequestEnded) -> None:
        self.counted += 1
        facts = event.request
        seconds = event.ended_at - facts.started_at
        try:
            route = self._routes[facts.route]
        except KeyError:
            route = self._new_route(facts.route)
        try:
            cells, exemplars = route.durations[facts.method, event.status]
        except KeyError:
            cells, exemplars = _new_durations(route, facts.method, event.status)
        bucket = bisect_left(DURATIONS, seconds)
        cells[bucket] += 1
        cells[-1] += seconds
        exemplars[bucket] = facts.trace.trace_id, seconds, event.ended_at
        if event.own_ms is not None:
            own = event.own_ms / 1000
            route.own[bisect_left(OWN_TIMES, own)] += 1
            route.own[-1] += own
        if event.completed is not None:
            route.answers["complete" if event.completed else "partial" if event.kind is None else "failed"] += 1
        elif event.calls:
            route.answers["failed"] += 1  # The request ended before its answer was made.
        ok = route.ok
        for outcome in event.calls:
            # Not a function per call: a request may have two hundred calls, and most succeed.
            if outcome.state == "value" and not outcome.failed_items:
                try:
                    ok[outcome.call] += 1
                except KeyError:
                    _count_first(route, outcome.call)
            else:
                _count_incomplete(route, outcome)

    def _new_route(self, name: str) -> _Route:
        if len(self._routes) >= ROUTES_MAX:
            name = OTHER
        return self._routes.setdefault(name, _Route(name))

    def values(self) -> dict[str, list[tuple[Labels, Value]]]:
        """The counts by metric, as in ``ProcessFigures.values``."""
        durations: list[tuple[Labels, Value]] = []
        own: list[tuple[Labels, Value]] = []
        answers: list[tuple[Labels, Value]] = []
        calls: list[tuple[Labels, Value]] = []
        for name, route in self._routes.items():
            durations += [((name, m, str(s)), cells[:]) for (m, s), (cells, _) in route.durations.items()]
            answers += [((name, outcome), count) for outcome, count in route.answers.items() if count]
            calls += zip(route.ok_labels, route.ok.values(), strict=True)
            calls += [((name, *labels), count) for labels, count in route.calls.items()]
            if any(route.answers.values()):
                own.append(((name,), route.own[:]))
        return {SERVER_DURATION.name: durations, ANSWERS.name: answers, CALLS.name: calls, OWN_SECONDS.name: own}

    def exemplars(self) -> Mapping[str, list[tuple[Labels, list[Exemplar]]]]:
        """The latest request of each bucket, as in ``ProcessFigures.exemplars``. In the trio thread."""
        epoch = time() - trio.current_time()
        found: list[tuple[Labels, list[Exemplar]]] = [
            (
                (name, method, str(status)),
                [Exemplar(bucket, trace, seconds, epoch + at) for bucket, (trace, seconds, at) in exemplars.items()],
            )
            for name, route in self._routes.items()
            for (method, status), (_, exemplars) in route.durations.items()
        ]
        return {SERVER_DURATION.name: found}


def _new_durations(route: _Route, method: str, status: int) -> _Durations:
    # An unknown method is no key of its own: a client could send any number of them.
    key = (method if method in METHODS else OTHER_METHOD), status
    found = route.durations.get(key)
    if found is None:
        found = route.durations[key] = new_cells(DURATIONS), {}
    return found


def _known(route: _Route, call: str) -> str:
    """The name under which a call is counted; from now on it is in ``ok``, so that its series exists."""
    name = call if call in route.ok or len(route.ok) < CALLS_MAX else OTHER
    if name not in route.ok:
        route.ok[name] = 0
        route.ok_labels.append((route.name, name, "ok", ""))
    return name


def _count_first(route: _Route, call: str) -> None:
    route.ok[_known(route, call)] += 1


def _count_incomplete(route: _Route, outcome: Outcome) -> None:
    name, failure = _known(route, outcome.call), outcome.worst
    state = "partial" if outcome.state == "value" else outcome.state
    key = name, state, "" if failure is None else str(failure.kind)
    route.calls[key] = route.calls.get(key, 0) + 1
