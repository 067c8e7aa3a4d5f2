"""The lines of the log as types: which fields a record has, under which names.

Filled by ``record.py``, encoded by ``encode.py``. The names follow OpenTelemetry's log data model and semantic
conventions where those have one. No header value, no body and no query string has a field here.
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


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """What they share, beside what ``encode.py`` gives to every line. A field that says nothing is left out."""

    msg: str = ""
    request_id: str = ""
    trace_id: str = ""
    sample: float | None = None
    """The share of such records that is kept, where it is not all."""


class CallPart(msgspec.Struct, frozen=True):
    """One call, inside its request's line."""

    name: str
    ms: float | None
    """None if it never began."""
    outcome: str
    """``ok``, ``partial`` (an ``each`` of which items failed), ``skipped``, or the kind of its failure."""
    attempts: int


class RequestLine(Line, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One inbound request (stream ``access``)."""

    method: str
    path: str
    route: str = ""
    status: int
    duration_ms: float
    own_ms: float | None = None
    """Of a composed answer: what it took beside its longest call."""
    body_size: int
    completed: bool | None = None
    kind: str | None = None
    client: str = ""
    scheme: str = ""
    calls: list[CallPart] | tuple[CallPart, ...] = ()
    calls_total: int = 0
    """Only where there were more than the line shows."""


class AttemptPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One attempt, inside its call's line."""

    number: int
    replica: str
    duration_ms: float
    status: int | None = None
    kind: str | None = None
    reused: bool = False
    cause: str = "first"
    coalesced: bool = False


class FailedItemPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One failed item of an ``each``, inside its call's line."""

    places: tuple[int, ...]
    kind: str
    msg: str = ""


class CallLine(Line, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One call of a composition (stream ``calls``)."""

    route: str = ""
    call: str
    upstream: str
    state: str
    kind: str | None = None
    status: int | None = None
    """The upstream's last status, if one came."""
    duration_ms: float | None = None
    """None if the call never began."""
    attempts: tuple[AttemptPart, ...] = ()
    attempts_total: int = 0
    """Only where there were more than the line shows."""
    items: int | None = None
    failed_items: tuple[FailedItemPart, ...] = ()
    failed_items_total: int = 0
    """Only where there were more than the line shows."""


class NoteLine(Line, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """Anything else (stream ``app``)."""

    route: str = ""
    fields: dict[str, object] = {}
    exception_type: str = ""
    exception_message: str = ""
    exception_stacktrace: str = ""
    leaves: tuple[str, ...] | list[str] = ()
    """Of an exception group: every exception within."""
    leaves_total: int = 0
