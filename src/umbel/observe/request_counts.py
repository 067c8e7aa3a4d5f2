"""Counting of requests and their calls: a recorder that counts each request and passes every event on.

It also keeps the timelines of some requests (``kept_requests.py``), and gives those to the traces that these want.

Each request has exactly one ``RequestEnded``, whoever ended it, so it is counted exactly once. Counting is a part of
every request: it enters two Python functions, however many calls the request has, and allocates one tuple. Only a
request of which a timeline is made enters more.

Bounds. Routes come from the configuration and the code. The methods of RFC 9110 and RFC 5789 are counted by name,
others as ``_OTHER``. Names of calls come from the configuration, but a handler may make them from values; beyond
CALLS_MAX names of a route they are counted as ``other``, and beyond NAME_CHARS_MAX characters they are cut.

*WebSockets.* RFC 6455 ends the HTTP request with the response 101; what follows is no HTTP. So a WebSocket is counted
like a request that ended with its handshake. OpenTelemetry's conventions leave this open.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from itertools import chain
from time import time
from typing import TYPE_CHECKING, Any

import trio

from ..core.diagnostics.redact import Redactor
from ..core.events import Event, LogMessage, Recorder, RequestEnded
from ..core.failure_kinds import CUT, Kind
from ..core.model import Outcome
from ..core.statistics.histogram import DURATIONS, OWN_TIMES, Cells, new_cells
from .catalogue import ANSWERS, AUTH_REQUESTS, CALLS, OWN_SECONDS, RESPONSES_CUT, SERIES_DROPPED, SERVER_DURATION
from .figures import Exemplar, Labels, Value
from .kept_requests import ERROR, PARTIAL, KeptRequests, RouteBuckets
from .timeline import outcome_of, timeline_of

if TYPE_CHECKING:
    from .traces.sampling import Traces

CALLS_MAX = 256
"""The bound on names of calls that are counted apart, per route."""
NAME_CHARS_MAX = 100
"""The bound on the name of a call; ``…`` replaces the rest."""
ROUTES_MAX = 10_000
"""The bound on routes that are counted apart; a process that registers more counts the others as ``other``."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER, OTHER_METHOD = "other", "_OTHER"
NO_CREDENTIAL = "none"
"""The kind of the credential of a request without one."""
LATENCIES = (0.05, 0.1, 0.2, 0.5, 1.0, 10.0)
"""The latencies in seconds from which the buckets of kept requests begin, without the first."""
SAMPLED_FLAGS = frozenset({"01", "03"})
"""The known flags of a trace context with "sampled"."""
_SWITCHED = 101

_Durations = tuple[Cells, dict[int, tuple[str, float, float]]]
"""A histogram, and for each bucket the trace id, the duration and the end (trio's clock) of its latest request."""


class _Route:
    """The counts of one route."""

    __slots__ = (
        "answers",
        "buckets",
        "calls",
        "cut",
        "durations",
        "handshakes",
        "name",
        "ok",
        "ok_labels",
        "others",
        "own",
    )

    def __init__(self, name: str, buckets: RouteBuckets) -> None:
        self.name = name
        self.buckets = buckets
        """Of the kept requests."""
        self.durations: dict[tuple[str, int], _Durations] = {}
        """By method and status."""
        self.handshakes: dict[tuple[str, int], _Durations] = {}
        """The same of WebSockets. They are apart so that other requests need not be asked whether they are one."""
        self.own: Cells = new_cells(OWN_TIMES)
        self.answers = {"complete": 0, "partial": 0, "failed": 0, "cancelled": 0}
        self.cut: dict[str, int] = {str(Kind.INTERNAL): 0}
        """Responses that broke off behind a status of success, by kind of the failure.

        Crashes are there from the start: ``rate()`` does not see the first event of a series that begins with it.
        """
        self.ok: dict[str, int] = {}
        """Calls that succeeded as a whole, by name."""
        self.ok_labels: list[Labels] = []
        """The labels of ``ok``, in its order: a route may have many calls, and they are collected in one step."""
        self.calls: dict[tuple[str, str, str], int] = {}
        """The other calls, by name, outcome and kind."""
        self.others = 0
        """Calls that are counted as ``other``."""


class CountingRecorder:
    """Counts requests, and passes every event on to another recorder.

    Attributes that this class does not have are those of the other recorder (``reopen``, ``flush``, ``statistics``).

    Args:
        recorder: takes all events.
        redactor: hides secrets in the timelines of requests.
    """

    def __init__(self, recorder: Recorder, redactor: Redactor | None = None) -> None:
        self.inner = recorder
        """The recorder that takes all events."""
        self.takes_attempts: bool = getattr(recorder, "takes_attempts", True)
        self.slow_call: float = getattr(recorder, "slow_call", 0.0)
        self.takes_heads: bool = getattr(recorder, "takes_heads", False)
        self.counted = 0
        """The number of counted requests."""
        self.kept = KeptRequests()
        """The timelines of some requests."""
        self.traces: Traces | None = None
        """Takes the timelines of the requests that it wants; None: there are no traces."""
        self._redactor = redactor or Redactor()
        self._others = 0
        """Requests that are counted for the route ``other``."""
        self._auth: dict[Labels, int] = {}
        """Requests for routes with ``auth``, by kind and outcome. Both are from closed lists of the code."""
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
            if event.switched_at is not None:
                seconds = event.switched_at - facts.started_at
            cells, exemplars = _new_durations(route, facts.method, event.status)
        bucket = bisect_left(DURATIONS, seconds)
        cells[bucket] += 1
        cells[-1] += seconds
        exemplars[bucket] = facts.trace.trace_id, seconds, event.ended_at
        if (auth := event.auth) is not None:
            key = auth.kind or NO_CREDENTIAL, auth.outcome
            self._auth[key] = self._auth.get(key, 0) + 1
        if event.own_ms is not None:
            own = event.own_ms / 1000
            route.own[bisect_left(OWN_TIMES, own)] += 1
            route.own[-1] += own
        if event.completed is not None:
            if event.completed:
                route.answers["complete"] += 1
            else:
                _count_incomplete_answer(route, event)
        elif event.kind is not None or event.calls:
            _count_incomplete_answer(route, event)
        ok = route.ok
        for outcome in event.calls:
            # Not a function per call: a request may have two hundred calls, and most succeed.
            if outcome.state == "value" and not outcome.failed_items:
                try:
                    ok[outcome.call] += 1
                except KeyError:
                    _count_first(route, outcome.call)
            else:
                _count_incomplete_call(route, outcome)
        # The bucket of the request (``kept_requests.BUCKETS``), for nearly all requests by one comparison.
        if event.kind is not None or event.completed is False or event.status >= 500:
            place = _place(event, seconds)
        else:
            place = 0 if seconds < 0.05 else _latency_place(seconds)
        buckets, traces = route.buckets, self.traces
        buckets.seen[place] += 1
        if event.ended_at >= buckets.keep_from[place] or (
            traces is not None and (place >= PARTIAL or seconds >= traces.slow or facts.trace.flags in SAMPLED_FLAGS)
        ):
            self._inspect(event, buckets, place, seconds)

    def _inspect(self, event: RequestEnded, buckets: RouteBuckets, place: int, seconds: float) -> None:
        """Keep the timeline of a request and give it to the traces, if they are to have it. Never raises."""
        keeps, traces = event.ended_at >= buckets.keep_from[place], self.traces
        sampled = "" if traces is None else traces.sampled(event, seconds, notable=place >= PARTIAL)
        if not (keeps or sampled):
            return
        try:
            timeline = timeline_of(event, self._redactor, sampled)
        except Exception as error:  # noqa: BLE001 - recording must not raise; the defect is recorded
            text = "the timeline of a request could not be made"
            self._record(LogMessage("error", "timeline.failed", text, event.request, {}, error))
            return
        if keeps:
            self.kept.add(buckets, place, timeline, event.ended_at)
        if traces is not None and sampled:
            traces.take(timeline)

    def _new_route(self, name: str) -> _Route:
        if len(self._routes) >= ROUTES_MAX:
            name = OTHER
            self._others += 1
        return self._routes.setdefault(name, _Route(name, self.kept.route(name)))

    def values(self) -> dict[str, list[tuple[Labels, Value]]]:
        """The counts by metric, as in ``ProcessFigures.values``."""
        durations: list[tuple[Labels, Value]] = []
        own: list[tuple[Labels, Value]] = []
        answers: list[tuple[Labels, Value]] = []
        calls: list[tuple[Labels, Value]] = []
        cut: list[tuple[Labels, Value]] = []
        others = self._others
        for name, route in self._routes.items():
            durations += [((name, m, str(s)), cells[:]) for (m, s), (cells, _) in _all_durations(route)]
            answers += [((name, outcome), count) for outcome, count in route.answers.items() if count]
            calls += zip(route.ok_labels, route.ok.values(), strict=True)
            calls += [((name, *labels), count) for labels, count in route.calls.items()]
            cut += [((name, kind), count) for kind, count in route.cut.items()]
            others += route.others
            if any(route.answers.values()):
                own.append(((name,), route.own[:]))
        return {
            SERVER_DURATION.name: durations,
            RESPONSES_CUT.name: cut,
            ANSWERS.name: answers,
            CALLS.name: calls,
            OWN_SECONDS.name: own,
            AUTH_REQUESTS.name: list(self._auth.items()),
            SERIES_DROPPED.name: [((), others)],
        }

    def exemplars(self) -> Mapping[str, list[tuple[Labels, list[Exemplar]]]]:
        """The latest request of each bucket, as in ``ProcessFigures.exemplars``. In the trio thread."""
        epoch = time() - trio.current_time()
        found: list[tuple[Labels, list[Exemplar]]] = [
            (
                (name, method, str(status)),
                [Exemplar(bucket, trace, seconds, epoch + at) for bucket, (trace, seconds, at) in exemplars.items()],
            )
            for name, route in self._routes.items()
            for (method, status), (_, exemplars) in _all_durations(route)
        ]
        return {SERVER_DURATION.name: found}


def _place(event: RequestEnded, seconds: float) -> int:
    """The index of the bucket of a request that is not a plain success."""
    outcome = outcome_of(event)
    if outcome == "failed" and (event.status >= 500 or event.broke_off):
        return ERROR
    return PARTIAL if outcome == "partial" else _latency_place(seconds)


def _latency_place(seconds: float) -> int:
    return bisect_right(LATENCIES, seconds)


def _new_durations(route: _Route, method: str, status: int) -> _Durations:
    # An unknown method is no key of its own: a client could send any number of them.
    key = (method if method in METHODS else OTHER_METHOD), status
    durations = route.handshakes if status == _SWITCHED else route.durations
    found = durations.get(key)
    if found is None:
        found = durations[key] = new_cells(DURATIONS), {}
    return found


def _all_durations(route: _Route) -> Iterable[tuple[tuple[str, int], _Durations]]:
    return chain(route.durations.items(), route.handshakes.items())


def _known(route: _Route, call: str) -> str:
    """The name under which a call is counted; from now on it is in ``ok``, so that its series exists."""
    name = call if len(call) <= NAME_CHARS_MAX else call[:NAME_CHARS_MAX] + "…"
    if name not in route.ok and len(route.ok) >= CALLS_MAX:
        name = OTHER
        route.others += 1
    if name not in route.ok:
        route.ok[name] = 0
        route.ok_labels.append((route.name, name, "ok", ""))
    return name


def _count_first(route: _Route, call: str) -> None:
    route.ok[_known(route, call)] += 1


def _count_incomplete_answer(route: _Route, event: RequestEnded) -> None:
    """Count a request that failed, or without a complete answer though it has calls."""
    if event.completed is None and not event.calls:
        pass  # No composition.
    elif event.kind is not None:
        # Without ``completed`` the request ended before its answer was made.
        route.answers["cancelled" if event.kind in CUT else "failed"] += 1
    elif event.completed is not None:
        route.answers["partial"] += 1
    elif event.status >= 500:
        route.answers["failed"] += 1  # The handler answers with an error of its own; any other own response is none.
    if event.broke_off:
        kind = str(event.kind)
        route.cut[kind] = route.cut.get(kind, 0) + 1


def _count_incomplete_call(route: _Route, outcome: Outcome) -> None:
    name, failure = _known(route, outcome.call), outcome.worst
    state: str = "partial" if outcome.state == "value" else outcome.state
    if state == "failed" and failure is not None and failure.kind in CUT:
        state = "cancelled"
    key = name, state, "" if failure is None else str(failure.kind)
    route.calls[key] = route.calls.get(key, 0) + 1
