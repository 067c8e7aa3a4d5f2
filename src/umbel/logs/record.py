"""From an event to the line that tells of it: which stream, which level, which fields.

Used by the recorder. Pure: the wall clock and the record's number are given to it.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from ..events import CallEnded, Level, Noted, RequestEnded
from ..kinds import Kind
from ..model import Attempt, FailedItem
from .encode import printable
from .lines import AttemptPart, CallLine, FailedItemPart, NoteLine, RequestLine

SEVERITY: dict[Level, int] = {"debug": 5, "info": 9, "warning": 13, "error": 17}
"""OpenTelemetry's SeverityNumber of each level."""

PARTS_MAX = 20
"""The attempts and the failed items that one line shows; further ones are counted."""

_STACK_FRAMES_MAX = 50
_STACK_CHARS_MAX = 16 * 1024
# Nobody's fault: these ended because somebody else did.
_QUIET = frozenset({Kind.CANCELLED, Kind.CLIENT_GONE, Kind.DEPENDENCY})


def request_line(event: RequestEnded, ts: datetime, seq: int) -> RequestLine:
    """The access line of a request. Its path stands there without the query, which may hold secrets."""
    request = event.request
    level: Level = "error" if event.status >= 500 else "warning" if event.completed is False else "info"
    return RequestLine(
        ts=ts,
        seq=seq,
        level=level,
        severity=SEVERITY[level],
        event="request.end",
        msg=event.detail,
        request_id=request.request_id,
        trace_id=request.trace.trace_id,
        method=request.method,
        path=request.path,
        route=request.route,
        status=event.status,
        duration_ms=_ms(event.ended_at - request.started_at),
        body_size=event.bytes_sent,
        completed=event.completed,
        kind=event.kind,
        client=event.client,
        scheme=event.scheme,
    )


def call_line(event: CallEnded, ts: datetime, seq: int) -> CallLine:
    """The line of a call, its attempts and failed items inside."""
    request, outcome, failure = event.request, event.outcome, event.outcome.worst
    level = _call_level(None if failure is None else failure.kind)
    attempts, failed = outcome.attempts, outcome.failed_items
    return CallLine(
        ts=ts,
        seq=seq,
        level=level,
        severity=SEVERITY[level],
        event="call.end",
        msg="" if failure is None else failure.detail,
        request_id=request.request_id,
        trace_id=request.trace.trace_id,
        route=request.route,
        call=outcome.call,
        upstream=event.upstream,
        state=outcome.state,
        kind=None if failure is None else failure.kind,
        status=next((attempt.status for attempt in reversed(attempts) if attempt.status is not None), None),
        duration_ms=None if outcome.started_at is None else _ms(outcome.ended_at - outcome.started_at),
        attempts=tuple(_attempt(attempt) for attempt in islice(attempts, PARTS_MAX)),
        attempts_total=_total(attempts),
        items=event.items,
        failed_items=tuple(_failed_item(item) for item in islice(failed, PARTS_MAX)),
        failed_items_total=_total(failed),
    )


def note_line(event: Noted, ts: datetime, seq: int) -> NoteLine:
    """The line of a note, with the whole exception if it has one."""
    request, error = event.request, event.error
    return NoteLine(
        ts=ts,
        seq=seq,
        level=event.level,
        severity=SEVERITY[event.level],
        event=event.event,
        msg=event.message,
        request_id="" if request is None else request.request_id,
        trace_id="" if request is None else request.trace.trace_id,
        route="" if request is None else request.route,
        fields=dict(event.fields),
        exception_type="" if error is None else f"{type(error).__module__}.{type(error).__qualname__}",
        exception_message="" if error is None else printable(error)[:_STACK_CHARS_MAX],
        exception_stacktrace="" if error is None else _stack(error),
    )


def _call_level(kind: Kind | None) -> Level:
    if kind is None or kind in _QUIET:
        return "info"
    return "error" if kind is Kind.INTERNAL else "warning"


def _attempt(attempt: Attempt) -> AttemptPart:
    return AttemptPart(
        number=attempt.number,
        replica=attempt.replica,
        duration_ms=_ms(attempt.ended_at - attempt.started_at),
        status=attempt.status,
        kind=attempt.kind,
        reused=attempt.reused,
        cause=attempt.cause,
        coalesced=attempt.coalesced,
    )


def _failed_item(item: FailedItem) -> FailedItemPart:
    return FailedItemPart(places=item.places[:PARTS_MAX], kind=item.failure.kind, msg=item.failure.detail)


def _total(parts: Sequence[object]) -> int:
    return len(parts) if len(parts) > PARTS_MAX else 0


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _stack(error: BaseException) -> str:
    """The traceback, groups with each leaf; the end of it where it is too long, since the cause stands there."""
    return "".join(traceback.format_exception(error, limit=_STACK_FRAMES_MAX))[-_STACK_CHARS_MAX:]
