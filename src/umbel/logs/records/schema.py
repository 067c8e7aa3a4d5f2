"""The schema of log records: which fields each kind of record has, and their names in JSON.

``encode.py`` adds the fields that every record has (time, level, event, service, process). The names follow
OpenTelemetry's log data model and semantic conventions where those have one. No field holds a header value, a body or
a query string.
"""

from __future__ import annotations

import msgspec

_NAMES = {
    "exception_type": "exception.type",
    "exception_message": "exception.message",
    "exception_stacktrace": "exception.stacktrace",
    "method": "http.request.method",
    "path": "url.path",
    "scheme": "url.scheme",
    "route": "http.route",
    "status": "http.response.status_code",
    "body_size": "http.response.body.size",
    "client": "client.address",
}


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """The fields that all kinds have in common. A field with its default value is not encoded."""

    msg: str = ""
    request_id: str = ""
    trace_id: str = ""
    sample: float | None = None
    """The sampling rate, if it is below 1."""


class CallPart(msgspec.Struct, frozen=True):
    """One call, within the record of its request."""

    name: str
    ms: float | None
    """Milliseconds; None for a call that was never started."""
    outcome: str
    """``ok``, ``partial`` (an ``each`` of which items failed), ``skipped``, or the kind of its failure."""
    attempts: int


class RequestRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One inbound request (stream ``access``)."""

    method: str
    path: str
    route: str = ""
    status: int
    duration_ms: float
    own_ms: float | None = None
    """Of a composed answer: its duration in milliseconds less that of its longest call."""
    body_size: int
    completed: bool | None = None
    kind: str | None = None
    client: str = ""
    scheme: str = ""
    calls: list[CallPart] | tuple[CallPart, ...] = ()
    calls_total: int = 0
    """0 unless there were more than are listed."""


class AttemptPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One attempt, within the record of its call."""

    number: int
    replica: str
    duration_ms: float
    status: int | None = None
    kind: str | None = None
    reused: bool = False
    cause: str = "first"
    coalesced: bool = False


class FailedItemPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One failed item of an ``each``, within the record of its call."""

    places: tuple[int, ...]
    kind: str
    msg: str = ""


class CallRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One call of a composition (stream ``calls``)."""

    route: str = ""
    call: str
    upstream: str
    state: str
    kind: str | None = None
    status: int | None = None
    """The last status that the upstream sent; None if it sent none."""
    duration_ms: float | None = None
    """None for a call that was never started."""
    attempts: tuple[AttemptPart, ...] = ()
    attempts_total: int = 0
    """0 unless there were more than are listed."""
    items: int | None = None
    failed_items: tuple[FailedItemPart, ...] = ()
    failed_items_total: int = 0
    """0 unless there were more than are listed."""


class NoteRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """Any other event (stream ``app``)."""

    route: str = ""
    fields: dict[str, object] = {}
    exception_type: str = ""
    exception_message: str = ""
    exception_stacktrace: str = ""
    leaves: tuple[str, ...] | list[str] = ()
    """Of an exception group: one text for each exception in it."""
    leaves_total: int = 0
