"""Frozen value types: facts of a request, attempts, failures, outcomes, and the inputs of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from .errors import UpstreamError
from .failure_kinds import KINDS, Kind
from .identity import Identity

Json = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict with str keys."""


JSON_MAX = 10**6
"""Default maximum bytes of an upstream's JSON body. Decoding blocks the event loop, so the default is small."""
OTHER_MAX = 10**7
"""Default maximum bytes of an upstream's body of another media type."""


class Trace(msgspec.Struct, frozen=True):
    """W3C trace context of a request (https://www.w3.org/TR/trace-context/)."""

    trace_id: str
    """32 lower-case hex digits."""
    parent_id: str | None = None
    """The inbound parent-id, 16 hex digits; None if the trace begins here."""
    flags: str = "00"
    """The ``trace-flags``, two hex digits; ``01``: sampled."""
    state: str = ""
    """The inbound ``tracestate``, forwarded unchanged."""

    @property
    def is_sampled(self) -> bool:
        """Whether the flag "sampled" is set."""
        return int(self.flags, 16) & 1 == 1

    def header(self, span_id: str) -> str:
        """The value of ``traceparent`` for an attempt with the id ``span_id`` (16 hex digits)."""
        return f"00-{self.trace_id}-{span_id}-{self.flags}"


class LimitValues:
    """What the limits of upstreams read of an inbound request.

    It has no text form and is compared by identity: the values are personal data.
    """

    __slots__ = ("by_name", "prices")

    def __init__(self, by_name: Mapping[str, Any]) -> None:
        self.by_name = by_name
        """The values that the expressions of the limits read."""
        self.prices: dict[str, tuple[str | bytes | None, float]] = {}
        """Key and cost of the request at each limit, by its name, once they were evaluated."""


class RequestFacts(msgspec.Struct, frozen=True):
    """Facts of an inbound request. Times are seconds of ``trio.current_time()``."""

    request_id: str
    trace: Trace
    method: str
    path: str
    """The path of the request target, percent-decoded, without the query."""
    route: str
    """The route's rule, such as ``/dashboard/<user_id>``; empty if no route matched."""
    started_at: float
    deadline: float = math.inf
    """The time at which the request must be over; infinite without a deadline."""
    complete_at: float | None = None
    """When the last byte of the request body had come; None if no body was waited for."""
    limit_values: LimitValues | None = None
    """What the limits of upstreams read of the request; None: its route calls no upstream that has limits."""

    @property
    def due_from(self) -> float:
        """The time from which the route's deadline counts: ``complete_at``, or ``started_at`` without a body."""
        return self.started_at if self.complete_at is None else self.complete_at

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields of log records that identify the request."""
        names: dict[str, object] = {"request_id": self.request_id, "trace_id": self.trace.trace_id}
        if self.route:
            names["http.route"] = self.route
        return names


Cause = Literal["first", "retry", "hedge", "redirect", "mirror"]
"""Why an attempt is made. mirror: for a copy of a request, whose response is dropped."""


class DialTimes(msgspec.Struct):
    """When the steps of dialling a connection ended, in ``trio.current_time()``; None: not ended, or left out.

    The dialler writes it, also while its attempt is under way, so it is complete as soon as the attempt has ended.
    """

    began_at: float
    resolved_at: float | None = None
    """The end of the name resolution."""
    connected_at: float | None = None
    """The end of connecting, if a TLS handshake follows."""
    ended_at: float | None = None
    """The end of all steps; with TLS, of the handshake."""


class Attempt(msgspec.Struct, frozen=True):
    """Record of an attempt that has ended: one request of a call on one connection."""

    number: int
    """The number of the attempt within its call, from 1."""
    replica: str
    """The base URL of the replica; for records only, never for clients."""
    started_at: float
    ended_at: float
    status: int | None = None
    """The status of the upstream's response; None if no response head came."""
    kind: Kind | None = None
    """Why the attempt failed; None if a whole response came, with any status."""
    reused: bool = False
    """Whether the connection had carried an earlier request."""
    cause: Cause = "first"
    """Why the attempt was made."""
    coalesced: bool = False
    """Whether the attempt was made for another call with the same request, whose response this call shared. If this
    call left before the response came, ``ended_at`` is the time of leaving; the attempt went on for the other calls."""
    item: int | None = None
    """The number of the item of an ``each`` that the attempt was made for; None for another call."""
    asked_at: float | None = None
    """When its call, or its item of an ``each``, began; None: not known."""
    head_at: float | None = None
    """When the response's head had come, if its body took longer; None: with the end, or no head came."""
    span_id: int = 0
    """The span id that the request has sent (``Trace.header``)."""
    trace: Trace | None = None
    """The trace context that the request has sent; that of a shared call is its own. None: it has sent none."""
    cancelled: str | None = None
    """The cancel reason, if this side ended the attempt; None: it ended by itself."""
    detail: str = ""
    """Why the attempt failed, in one sentence; empty if it did not. For records only."""
    method: str = ""
    dial: DialTimes | None = None
    """The times of the connection that was opened for the attempt; None: none was."""


@dataclass(frozen=True, slots=True)
class PassedBody:
    """An upstream's error body that the route forwards unchanged (``pass_body``)."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call, or the whole answer, gave no value.

    Has the kind, the sentence for records, and what the response to the client gets if this failure decides it.
    """

    kind: Kind
    status: int
    """The status of the response to the client, if this failure decides the response."""
    detail: str
    """One sentence for records. It may name hosts and must never be sent to a client."""
    received_status: int | None = None
    """The status of the upstream's response, for the kind ``status`` (``received-status`` of Proxy-Status)."""
    proxy_error: str | None = None
    """The ``error`` of Proxy-Status (RFC 9209 section 2.3); None if ``received-status`` says everything."""
    body: PassedBody | None = None
    """The upstream's error body, if the route forwards it."""
    fields: tuple[tuple[str, str], ...] = ()
    """Header fields that belong to ``status``: those of the upstream if its status is forwarded, or the Retry-After of
    the circuit breaker or of a limit."""
    forwarded: tuple[tuple[str, str], ...] = ()
    """Header fields of the upstream's response that the route forwards: cookies, and if the upstream's status is
    forwarded, all fields that the route names."""
    public: str = ""
    """One sentence for the client about its own mistake; empty if the failure is not the client's mistake."""
    limit: str = ""
    """The section ``[limits.NAME]`` that refused the call; empty: none did."""

    @classmethod
    def of(
        cls, kind: Kind, detail: str, *, status: int | None = None, proxy_error: str | None = None, public: str = ""
    ) -> Failure:
        """Make a failure. ``status`` and ``proxy_error`` default to those of ``KINDS[kind]``."""
        rule = KINDS[kind]
        proxy_error = proxy_error or rule.proxy_error
        return cls(kind, rule.status if status is None else status, detail, None, proxy_error, public=public)

    @property
    def of_client(self) -> bool:
        """Whether the failure is the client's mistake: a value of its request cannot be used."""
        return self.public != ""

    @classmethod
    def from_error(cls, error: UpstreamError) -> Failure:
        """Make the failure that corresponds to an exception of an upstream."""
        failure = cls.of(error.kind, error.detail, proxy_error=error.proxy_error)
        if error.limit:
            failure = replace(failure, limit=error.limit)
        if error.retry_after is None:
            return failure
        return replace(failure, fields=(("retry-after", str(max(1, math.ceil(error.retry_after)))),))


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A failed item of an ``each`` call, with all indexes of this item in the list."""

    places: tuple[int, ...]
    failure: Failure


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of a call of a composition. Each call has exactly one."""

    call: str
    """The name of the call."""
    state: Literal["value", "skipped", "failed"]
    value: Json = None
    """The value for expressions and for the answer; the call's default, or null, if the call was skipped or failed."""
    failure: Failure | None = None
    """Why the call failed; None unless ``state`` is "failed"."""
    started_at: float | None = None
    """When the call began, in ``trio.current_time()``; None if it never began."""
    ended_at: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    failed_items: tuple[FailedItem, ...] = ()
    """The failed items of an ``each`` call."""
    headers: tuple[tuple[str, str], ...] = ()
    """The header fields of the response; empty for an ``each`` call."""
    answer_status: int | None = None
    """The status that this call gives to the answer; None: the answer has the route's status."""
    upstream: str = ""
    needs: tuple[str, ...] = ()
    """The names of the calls whose values this call needs."""

    @property
    def complete(self) -> bool:
        """Whether neither the call nor an item of it failed."""
        return self.state != "failed" and not self.failed_items

    @property
    def worst(self) -> Failure | None:
        """The failure of the call, or else of its first failed item; None if nothing failed."""
        if self.failure is not None:
            return self.failure
        return self.failed_items[0].failure if self.failed_items else None

    @property
    def of_client(self) -> bool:
        """Whether something failed, and each failure is the client's mistake."""
        if self.failure is not None:
            return self.failure.of_client
        return bool(self.failed_items) and all(item.failure.of_client for item in self.failed_items)


_NONE: Mapping[str, Any] = MappingProxyType({})


class Inputs(msgspec.Struct, frozen=True):
    """Values of the validated inbound request that a plan can refer to. Names in ``headers`` are in lower case."""

    path: Mapping[str, Json] = _NONE
    query: Mapping[str, Json] = _NONE
    headers: Mapping[str, str] = _NONE
    body: Json = None
    raw_query: bytes = b""
    """The unchanged query of the request target, for ``forward_query``."""
    cookies: Mapping[str, str] = _NONE
    raw_body: bytes = b""
    content_type: str = ""
    request_id: str = ""
    """The X-Request-Id that calls send; empty: none."""
    forwarded: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """Further gateway fields that calls send: Via. A ``core.call.FieldBlock`` is encoded only once."""
    forwarded_for: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """The X-Forwarded-* fields that calls send. They are separate because an upstream may be configured to get none."""
    client: str = ""
    """The client's address; empty: unknown, as on a Unix socket."""
    identity: Identity | None = None
    """Who makes the request; None: its route has no ``auth``."""
