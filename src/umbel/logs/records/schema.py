"""The schema of log records: the fields of each kind of record, and their names in JSON.

The encoder adds the fields that all records have (time, level, event, task, service, process). Names follow
OpenTelemetry's log data model and semantic conventions if these define one. No field holds a header field's value, a
body, a query string or any part of a credential. A field with its default value is not encoded.
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
    "auth_kind": "auth.kind",
    "auth_name": "auth.name",
    "auth_outcome": "auth.outcome",
    "limit_name": "limit.name",
}


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """The fields that all kinds of records share."""

    msg: str = ""
    request_id: str = ""
    trace_id: str = ""
    sample: float | None = None
    """The share of records that sampling keeps; None if it keeps all."""


class CallPart(msgspec.Struct, frozen=True):
    """One call in the record of its request."""

    name: str
    ms: float | None
    """The call's duration in milliseconds; None if the call was never started."""
    outcome: str
    """``ok``, ``partial`` (some items of an ``each`` failed), ``skipped``, or the kind of the failure."""
    attempts: int


class RequestRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One inbound request (stream ``access``)."""

    method: str
    path: str
    route: str = ""
    status: int
    duration_ms: float
    own_ms: float | None = None
    """Of a composed response: milliseconds until it was made, minus those of its longest chain of calls; else None."""
    body_size: int
    """Bytes of response content that were sent."""
    completed: bool | None = None
    """Whether no call of a composed response failed; None for other responses."""
    kind: str | None = None
    """The kind of the failure that decided the response; None for a success."""
    client: str = ""
    scheme: str = ""
    calls: list[CallPart] | tuple[CallPart, ...] = ()
    calls_total: int = 0
    """The number of calls if not all are listed, otherwise 0."""
    auth_kind: str = ""
    """The kind of the credential: ``jwt``, ``api-key`` or ``mtls``; empty without a credential."""
    auth_name: str = ""
    """The name of the section ``[auth.NAME]`` that accepted or refused the credential; empty without a credential."""
    auth_outcome: str = ""
    """Why the request was not admitted (``AuthResult.outcome``); empty if it was, or if its route has no ``auth``."""
    limit_name: str = ""
    """The name of the section ``[limits.NAME]`` that refused the request; empty: none did."""


class RequestStartRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """The start of a stream that lasts (stream ``access``). The record of its end has the same request id."""

    method: str
    path: str
    route: str = ""
    client: str = ""
    scheme: str = ""
    auth_kind: str = ""
    auth_name: str = ""


class AttemptPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One attempt in the record of its call."""

    number: int
    """The number of the attempt in its call, from 1 on."""
    replica: str
    """The base URL of the replica."""
    duration_ms: float
    status: int | None = None
    kind: str | None = None
    reused: bool = False
    cause: str = "first"
    coalesced: bool = False


class FailedItemPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """One failed item of an ``each`` in the record of its call."""

    places: tuple[int, ...]
    """The positions of the item in the list, at most 20."""
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
    """The status of the last response that the upstream sent; None if there was none."""
    duration_ms: float | None = None
    """None if the call was never started."""
    attempts: tuple[AttemptPart, ...] = ()
    attempts_total: int = 0
    """The number of attempts if not all are listed, otherwise 0."""
    items: int | None = None
    """The number of distinct items of an ``each``; None for another call."""
    failed_items: tuple[FailedItemPart, ...] = ()
    failed_items_total: int = 0
    """The number of failed items if not all are listed, otherwise 0."""


class NoteRecord(Record, frozen=True, kw_only=True, omit_defaults=True, rename=_NAMES):
    """Any other event (stream ``app``)."""

    route: str = ""
    fields: dict[str, object] = {}
    exception_type: str = ""
    exception_message: str = ""
    exception_stacktrace: str = ""
    leaves: tuple[str, ...] | list[str] = ()
    """One text for each leaf of an exception group."""
    leaves_total: int = 0
    """The number of leaves if not all are listed, otherwise 0."""
