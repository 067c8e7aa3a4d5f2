"""Conversion of events to log records: the stream, the level and the fields of each. Pure.

The encoder adds the time of a record, and the queue its sequence number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import msgspec

from ...core.diagnostics.exception_fields import exception_fields, mark_recorded
from ...core.diagnostics.redact import cut
from ...core.events import CallEnded, LogMessage, RequestEnded, RequestStarted
from ...core.failure_kinds import Kind
from ...core.identity import AuthResult
from ...core.model import Attempt, FailedItem, Outcome
from .level import LevelName
from .schema import (
    AttemptPart,
    CallPart,
    CallRecord,
    FailedItemPart,
    NoteRecord,
    Record,
    RequestRecord,
    RequestStartRecord,
)

StreamName = Literal["access", "calls", "app"]

PARTS_MAX = 20
"""The bound on the attempts, and on the failed items, that a record lists."""

CALLS_MAX = 200
"""The bound on the calls that the record of a request lists."""

PATH_CHARS_MAX = 1024
"""The bound on a path; ``…`` replaces the rest."""
METHOD_CHARS_MAX = 32
"""The bound on a method; ``…`` replaces the rest. The longest registered method has 17 characters."""

# Kinds of calls that ended because something else did: the upstream has not failed.
_NOT_UPSTREAM_FAILURES = frozenset({Kind.CANCELLED, Kind.CLIENT_GONE, Kind.DEPENDENCY})

Entry = tuple[StreamName, LevelName, str, Record, float | None]
"""Stream, level, event name, record, and duration in milliseconds (for sampling)."""

_REFUSALS = frozenset({501, 505})
"""Statuses of 500 and above that are a client's mistake: as errors, any client could raise an alert with them."""
_ADMITTED = "admitted"
_NO_AUTH = AuthResult(_ADMITTED)


def to_record(event: RequestEnded | RequestStarted | CallEnded | LogMessage) -> Entry:
    """Return the record of an event, with its stream, level, event name and duration."""
    if isinstance(event, RequestEnded):
        record = request_record(event)
        return "access", request_level(event), "request.end", record, record.duration_ms
    if isinstance(event, RequestStarted):
        return _request_start(event)
    return _call(event) if isinstance(event, CallEnded) else _log_message(event)


def request_level(event: RequestEnded) -> LevelName:
    """Return the level of a request's record.

    Error for statuses of 500 and above, except for a client's mistake with 501 or 505, and for a response that broke
    off behind a status of success. Otherwise warning for a composed response in which a call failed, unless each
    failure is the client's own mistake. Otherwise info.
    """
    if event.status >= 500 and not (event.kind is Kind.BAD_REQUEST and event.status in _REFUSALS):
        return "error"
    if event.completed:
        return "info"
    if event.completed is False:
        # A mistake of the client is no warning for the operator; a response without one of its parts is.
        return "info" if event.of_client else "warning"
    return "error" if event.kind is not None and event.broke_off else "info"


def request_record(event: RequestEnded) -> RequestRecord:
    """Return the access record of a request. Its path has no query, because a query may hold secrets.

    Long methods and paths are cut (``METHOD_CHARS_MAX``, ``PATH_CHARS_MAX``).
    """
    request = event.request
    method, path, calls = request.method, request.path, event.calls
    total = len(calls)
    # At most fifteen keywords: CPython passes more of them in a dict, which makes the record four times as expensive.
    record = RequestRecord(
        msg=event.detail,
        request_id=request.request_id,
        trace_id=request.trace.trace_id,
        method=shown_method(method) if method[METHOD_CHARS_MAX:] else method,
        path=shown_path(path) if path[PATH_CHARS_MAX:] else path,
        route=request.route,
        status=event.status,
        duration_ms=_ms(event.ended_at - request.started_at),
        own_ms=None if event.own_ms is None else round(event.own_ms, 3),
        body_size=event.bytes_sent,
        completed=event.completed,
        kind=event.kind,
        client=event.client,
        scheme=event.scheme,
        calls=_call_parts(calls if total <= CALLS_MAX else calls[:CALLS_MAX]) if total else (),
    )
    if event.auth is None and not event.limit and total <= CALLS_MAX:
        return record
    auth = event.auth or _NO_AUTH
    return msgspec.structs.replace(
        record,
        calls_total=total if total > CALLS_MAX else 0,
        auth_kind=auth.kind,
        auth_name=auth.name,
        auth_outcome="" if auth.outcome == _ADMITTED else auth.outcome,
        limit_name=event.limit,
    )


def _request_start(event: RequestStarted) -> Entry:
    """Return the record of the start of a stream. The duration is for sampling: a stream that lasts is slow."""
    request, auth = event.request, event.auth or _NO_AUTH
    record = RequestStartRecord(
        request_id=request.request_id,
        trace_id=request.trace.trace_id,
        method=shown_method(request.method),
        path=shown_path(request.path),
        route=request.route,
        client=event.client,
        scheme=event.scheme,
        auth_kind=auth.kind,
        auth_name=auth.name,
    )
    return "access", "info", "request.start", record, _ms(event.at - request.started_at)


def shown_method(method: str) -> str:
    """Return a method, cut to ``METHOD_CHARS_MAX``."""
    return method[:METHOD_CHARS_MAX] + "…" if method[METHOD_CHARS_MAX:] else method


def shown_path(path: str) -> str:
    """Return a path, cut to ``PATH_CHARS_MAX``."""
    return cut(path, PATH_CHARS_MAX) + "…" if path[PATH_CHARS_MAX:] else path


def _call_parts(outcomes: Sequence[Outcome]) -> list[CallPart]:
    # Neither round() nor a function per call: a record may list two hundred calls.
    return [
        CallPart(
            outcome.call,
            None if outcome.started_at is None else int((outcome.ended_at - outcome.started_at) * 1e6 + 0.5) / 1000,
            ("partial" if outcome.failed_items else "ok")
            if outcome.state == "value"
            else outcome.state
            if outcome.failure is None
            else outcome.failure.kind,
            # Most calls have one attempt: then the first is the last, and nothing need be counted.
            1 if outcome.attempts and outcome.attempts[-1] is outcome.attempts[0] else len(outcome.attempts),
        )
        for outcome in outcomes
    ]


def _call(event: CallEnded) -> Entry:
    """Return the record of a call, with its attempts and failed items."""
    request, outcome, failure = event.request, event.outcome, event.outcome.worst
    attempts, failed = outcome.attempts, outcome.failed_items
    record = CallRecord(
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
    return "calls", _call_level(outcome), "call.end", record, record.duration_ms


def _log_message(event: LogMessage) -> Entry:
    """Return the record of a log message, with the fields of its exception."""
    request, error = event.request, event.error
    record = NoteRecord(
        msg=event.message,
        request_id="" if request is None else request.request_id,
        trace_id="" if request is None else request.trace.trace_id,
        route="" if request is None else request.route,
        fields=dict(event.fields),
    )
    if error is not None:
        mark_recorded(error)
        members = {name.replace(".", "_"): value for name, value in exception_fields(error).items()}
        record = msgspec.structs.replace(record, **members)
    return "app", event.level, event.event, record, None


def _call_level(outcome: Outcome) -> LevelName:
    failure = outcome.worst
    if failure is None or failure.kind in _NOT_UPSTREAM_FAILURES or outcome.of_client:
        return "info"
    return "error" if failure.kind is Kind.INTERNAL else "warning"


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
    """Return the number of parts if a record cannot list all of them, otherwise 0."""
    return len(parts) if len(parts) > PARTS_MAX else 0


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
