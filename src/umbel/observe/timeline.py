"""Timeline of a finished request: when its calls and attempts began, in which phases they were, and how they ended.

It is made from the request's record (``RequestEnded``), so nothing is measured for it that the record lacks. The page
of the admin side, ``umbel slow`` and the spans of traces are all made from it.

Theory
------
*Times* are milliseconds from the request's start (``received``), rounded to microseconds. A time before the start is
negative: a shared call may have begun for another request.

*Phases of an attempt*, in this order, each only if it took time: ``queue`` (the call waited for a place of the
bulkhead or for its limits; before the attempt's own start), ``dns``, ``connect``, ``tls``, ``wait`` (from the
connection to the head of the response, with the sending of the request), ``body`` (until the end of the response). A
phase that was under way when the attempt ended lasts until that end. A response that came in one read has no ``body``.

*Critical path*: the calls whose durations add up to that of the answer. It is followed from its end: the call that
ended last, unless the answer was decided without it; then, of the calls that this one needs, the one that ended last;
and so on. Of a call without ``needs``, the one before it is the call that ended last before it began, because calls of
code have no needs. Of a call on the path, the attempt on the path is the one that gave its result.

*Bounds*: ``CALLS_MAX`` calls and ``ATTEMPTS_MAX`` attempts of each; those that took longest are kept. Texts are cut,
and secrets in them hidden, as in the log.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from heapq import nlargest
from time import time
from typing import Literal

import msgspec

from ..core.diagnostics.redact import Redactor, cut
from ..core.events import RequestEnded
from ..core.failure_kinds import CUT, Kind
from ..core.model import Attempt, Outcome
from ..logs.records.record import shown_method, shown_path

CALLS_MAX = 200
"""The bound on the calls of a timeline."""
ATTEMPTS_MAX = 50
"""The bound on the attempts of a call in a timeline."""
TEXT_CHARS_MAX = 1024
"""The bound on a path and on a reason; ``…`` replaces the rest."""

PhaseName = Literal["queue", "dns", "connect", "tls", "wait", "body"]
RequestOutcome = Literal["complete", "partial", "failed", "cancelled"]
CallOutcome = Literal["ok", "partial", "failed", "skipped", "cancelled"]
AttemptOutcome = Literal["ok", "failed", "cancelled"]
Sampled = Literal["", "head", "tail"]


class Phase(msgspec.Struct, frozen=True):
    """One phase of an attempt; see the module."""

    name: PhaseName
    start_ms: float
    end_ms: float


class AttemptLine(msgspec.Struct, frozen=True):
    """One attempt of a call: one request to one replica."""

    cause: str
    """``first``, ``retry``, ``hedge``, ``redirect`` or ``mirror``."""
    method: str
    replica: str
    """The base URL of the replica."""
    resend: int
    """How many attempts of the same call, or of the same item of an ``each``, began earlier."""
    item: int | None
    """The number of the item of an ``each``; None for another call, and for an attempt that other requests share."""
    start_ms: float
    """When a replica was chosen; the phase ``queue`` lies before it."""
    end_ms: float
    status: int | None
    """The status of the response; None without one."""
    outcome: AttemptOutcome
    """``ok``: a whole response came, with any status. ``cancelled``: this side ended it, for ``reason``."""
    kind: str | None
    """The failure kind; None for a response."""
    reason: str
    """The cancel reason (``lost-hedge``, ``decided``, ``client-gone``, …), or why it failed; empty for a response."""
    reused: bool
    """Whether the connection had carried an earlier request."""
    coalesced: bool
    """Whether the attempt was made for another request, whose response this call shared."""
    span_id: str
    """The span id that was sent in ``traceparent``; 16 hex digits."""
    trace_id: str
    """The trace id that was sent, if it is not that of the request (a shared call has its own); else empty."""
    critical: bool
    """Whether the attempt is on the critical path."""
    phases: tuple[Phase, ...]


class CallLine(msgspec.Struct, frozen=True):
    """One call of a request."""

    name: str
    upstream: str
    """The upstream; empty for a call without one."""
    needs: tuple[str, ...]
    """The names of the calls whose values it needs."""
    start_ms: float | None
    """None: it never began."""
    end_ms: float
    outcome: CallOutcome
    """``partial``: items of an ``each`` failed. ``cancelled``: the call was cut because its result was not needed."""
    kind: str | None
    """The failure kind; None: nothing failed."""
    reason: str
    """Why it failed or was cut, in one sentence; else empty."""
    span_id: str
    critical: bool
    """Whether the call is on the critical path."""
    attempts: tuple[AttemptLine, ...]
    """In the order of their starts."""
    attempts_total: int
    """How many attempts there were; more than ``attempts`` holds if some were left out."""


class Timeline(msgspec.Struct, frozen=True):
    """The timeline of one request; see the module."""

    received: float
    """When the head of the request was complete, in seconds since the epoch."""
    duration_ms: float
    """Until the end of the response."""
    method: str
    path: str
    """The path without its query, percent-decoded."""
    route: str
    """The route's rule; empty if no route matched."""
    status: int
    outcome: RequestOutcome
    """``partial``: a composed answer without a part. ``failed``: an error response, or a response that broke off.
    ``cancelled``: the client left, or the server stopped, before the end."""
    kind: str | None
    """The failure kind that decided the response; None for a success."""
    reason: str
    """Why the request ended as it did, in one sentence; empty for a complete answer."""
    deadline_ms: float | None
    """The route's deadline; None: there is none."""
    deadline_reached: bool
    """Whether calls were cut at the deadline."""
    body_ms: float | None
    """When the last byte of the request body had come; None: no body was waited for."""
    own_ms: float | None
    """The gateway's own share of a composed answer; None for others."""
    request_id: str
    trace_id: str
    span_id: str
    parent_id: str
    """The span id of the client's ``traceparent``; empty without one."""
    parent_sampled: bool | None
    """Whether the client's ``traceparent`` has the flag "sampled"; None: the trace begins here."""
    sampled: Sampled
    """``head``: chosen for a trace at its start; ``tail``: at its end, since it failed, is partial or was slow."""
    client: str
    """The client's address."""
    scheme: str
    calls: tuple[CallLine, ...]
    """In the order of the configuration or code."""
    calls_total: int
    """How many calls there were; more than ``calls`` holds if some were left out."""


def outcome_of(event: RequestEnded) -> RequestOutcome:
    """How a request ended, as ``Timeline.outcome``."""
    if event.kind in CUT:
        return "cancelled"
    if event.status >= 400 or event.broke_off or (event.completed is not None and event.kind is not None):
        return "failed"
    return "partial" if event.completed is False else "complete"


def timeline_of(event: RequestEnded, redactor: Redactor, sampled: Sampled = "", *, epoch: float = math.nan) -> Timeline:
    """Make the timeline of a request. Takes some 10 µs, and as much for each call and attempt.

    Args:
        event: the record of the request.
        redactor: hides secrets in the texts.
        sampled: how the request was chosen for a trace.
        epoch: seconds to add to ``trio.current_time()`` for seconds since the epoch; nan: the request has just ended.
    """
    facts = event.request
    trace, start = facts.trace, facts.started_at
    if math.isnan(epoch):
        epoch = time() - event.ended_at
    outcomes, deadline = event.calls, facts.deadline
    critical = _critical_calls(outcomes)
    kept: Sequence[Outcome] = outcomes
    if len(outcomes) > CALLS_MAX:
        longest = {id(each) for each in nlargest(CALLS_MAX, outcomes, key=_duration)}
        kept = [each for each in outcomes if id(each) in longest]
    outcome, reached = outcome_of(event), _reached(event)
    lines = _Lines(start, trace.trace_id, redactor)
    return Timeline(
        received=round(epoch + start, 6),
        duration_ms=lines.ms(event.ended_at),
        method=lines.text(shown_method(facts.method)),
        path=lines.text(shown_path(facts.path)),
        route=facts.route,
        status=event.status,
        outcome=outcome,
        kind=None if event.kind is None else str(event.kind),
        reason=lines.text(_reason(event, outcome, deadline_reached=reached)),
        deadline_ms=None if deadline == math.inf else lines.ms(deadline),
        deadline_reached=reached,
        body_ms=None if facts.complete_at is None else lines.ms(facts.complete_at),
        own_ms=None if event.own_ms is None else round(event.own_ms, 3),
        request_id=facts.request_id,
        trace_id=trace.trace_id,
        span_id=new_span_id(),
        parent_id=trace.parent_id or "",
        parent_sampled=trace.is_sampled if trace.parent_id else None,
        sampled=sampled,
        client=event.client,
        scheme=event.scheme,
        calls=tuple([lines.call(each, is_critical=each.call in critical) for each in kept]),
        calls_total=len(outcomes),
    )


def new_span_id() -> str:
    """A new span id: 16 hex digits, not all zero."""
    return f"{random.getrandbits(64) or 1:016x}"


def _duration(outcome: Outcome) -> float:
    return 0.0 if outcome.started_at is None else outcome.ended_at - outcome.started_at


def _reached(event: RequestEnded) -> bool:
    """Whether the deadline of the request has cut a call, or the response."""
    deadline = event.request.deadline
    if event.kind is Kind.TIMEOUT and event.ended_at >= deadline:
        return True
    return any(
        each.ended_at >= deadline and each.worst is not None and each.worst.kind is Kind.TIMEOUT for each in event.calls
    )


def _reason(event: RequestEnded, outcome: RequestOutcome, *, deadline_reached: bool) -> str:
    if event.detail or outcome == "complete":
        return event.detail
    if event.kind is Kind.CLIENT_GONE:
        return "the client left"
    if deadline_reached:
        return "the route's deadline passed"
    missing = [each for each in event.calls if not each.complete]
    if outcome == "partial" and missing:
        return f"without {', '.join(each.call for each in missing[:5])}{', …' if len(missing) > 5 else ''}"
    return next((each.failure.detail for each in missing if each.failure and each.failure.kind is event.kind), "")


def _critical_calls(outcomes: Sequence[Outcome]) -> frozenset[str]:
    """The names of the calls on the critical path; see the module."""
    began = [each for each in outcomes if each.started_at is not None]
    ends = [each for each in began if each.failure is None or each.failure.kind not in CUT] or began
    by_name = {each.call: each for each in began}
    found: set[str] = set()
    last = max(ends, key=_end, default=None)
    while last is not None and last.call not in found:
        found.add(last.call)
        if last.needs:
            before = [by_name[name] for name in last.needs if name in by_name]
        else:
            before = [each for each in began if each.ended_at <= (last.started_at or 0.0) and each is not last]
        last = max(before, key=_end, default=None)
    return frozenset(found)


def _end(outcome: Outcome) -> float:
    return outcome.ended_at


class _Lines:
    """Makes the lines of one timeline.

    Args:
        start: the start of the request, in ``trio.current_time()``.
        trace_id: the trace id of the request.
        redactor: hides secrets in texts.
    """

    def __init__(self, start: float, trace_id: str, redactor: Redactor) -> None:
        self._start = start
        self._trace_id = trace_id
        self._redactor = redactor

    def ms(self, at: float) -> float:
        return round((at - self._start) * 1000, 3)

    def text(self, text: str) -> str:
        shown = cut(text, TEXT_CHARS_MAX) + "…" if len(text) > TEXT_CHARS_MAX else text
        if not shown.isascii():
            shown = shown.encode("utf-8", "replace").decode()  # Without lone surrogates, which no encoder takes.
        return self._redactor.text(shown) if shown else shown

    def call(self, outcome: Outcome, *, is_critical: bool) -> CallLine:
        failure = outcome.worst
        state: CallOutcome
        if outcome.state == "value":
            state = "partial" if outcome.failed_items else "ok"
        else:
            state = outcome.state
            if failure is not None and failure.kind in CUT:
                state = "cancelled"
        attempts = outcome.attempts
        decisive = max(attempts, key=_decides, default=None) if is_critical else None
        places = dict(_resends(attempts)) if len(attempts) > 1 else {}
        shown: Sequence[Attempt] = attempts
        if len(attempts) > ATTEMPTS_MAX:
            shown = nlargest(ATTEMPTS_MAX, attempts, key=lambda each: each.ended_at - each.started_at)
        lines = [
            self._attempt(each, places.get(id(each), 0), is_critical=each is decisive)
            for each in sorted(shown, key=_order)
        ]
        return CallLine(
            name=self.text(outcome.call),
            upstream=outcome.upstream,
            needs=outcome.needs,
            start_ms=None if outcome.started_at is None else self.ms(outcome.started_at),
            end_ms=self.ms(outcome.ended_at),
            outcome=state,
            kind=None if failure is None else str(failure.kind),
            reason="" if failure is None else self.text(failure.detail),
            span_id=new_span_id(),
            critical=is_critical,
            attempts=tuple(lines),
            attempts_total=len(attempts),
        )

    def _attempt(self, attempt: Attempt, resend: int, *, is_critical: bool) -> AttemptLine:
        cancelled, trace = attempt.cancelled, attempt.trace
        outcome: AttemptOutcome = "ok" if attempt.kind is None else "failed" if cancelled is None else "cancelled"
        return AttemptLine(
            cause=attempt.cause,
            method=attempt.method,
            replica=self._redactor.text(attempt.replica),
            resend=resend,
            item=attempt.item,
            start_ms=self.ms(attempt.started_at),
            end_ms=self.ms(attempt.ended_at),
            status=attempt.status,
            outcome=outcome,
            kind=None if attempt.kind is None else str(attempt.kind),
            reason=self.text(attempt.detail) if cancelled is None else self.text(cancelled or "no reason given"),
            reused=attempt.reused,
            coalesced=attempt.coalesced,
            span_id=f"{attempt.span_id:016x}",
            trace_id="" if trace is None or trace.trace_id == self._trace_id else trace.trace_id,
            critical=is_critical,
            phases=tuple(self._phases(attempt)),
        )

    def _phases(self, attempt: Attempt) -> Iterator[Phase]:
        at, end = attempt.started_at, attempt.ended_at
        if attempt.cause == "first" and attempt.asked_at is not None and attempt.asked_at < at:
            yield Phase("queue", self.ms(attempt.asked_at), self.ms(at))
        for name, until in _steps(attempt):
            until = end if until is None else min(until, end)
            if until > at:
                yield Phase(name, self.ms(at), self.ms(until))
                at = until
        if end > at:
            yield Phase("wait" if attempt.head_at is None else "body", self.ms(at), self.ms(end))


def _steps(attempt: Attempt) -> Iterator[tuple[PhaseName, float | None]]:
    """The phases of an attempt from its start, but the last one, with the end of each; None: it was not reached.

    A kept connection that had ended was tried before the dialling, if that began later than the attempt.
    """
    dial = attempt.dial
    if dial is not None:
        if dial.began_at - attempt.started_at > 0.001:
            yield "wait", dial.began_at
        if dial.resolved_at is not None:
            yield "dns", dial.resolved_at
        if dial.connected_at is not None:
            yield "connect", dial.connected_at
            yield "tls", dial.ended_at
        elif dial.ended_at is None:
            yield "dns" if dial.resolved_at is None else "connect", None
        else:
            yield "connect", dial.ended_at
    if attempt.head_at is not None:
        yield "wait", attempt.head_at


def _order(attempt: Attempt) -> tuple[float, bool, int]:
    return attempt.started_at, attempt.cause != "first", attempt.number


def _decides(attempt: Attempt) -> tuple[bool, float]:
    return attempt.cancelled is None, attempt.ended_at


def _resends(attempts: Sequence[Attempt]) -> Iterator[tuple[int, int]]:
    """By identity of each attempt: how many of the same item began before it."""
    counts: dict[int | None, int] = {}
    for attempt in sorted(attempts, key=_order):
        number = counts.get(attempt.item, 0)
        counts[attempt.item] = number + 1
        yield id(attempt), number
