"""Value types that the packages share: facts of a request, attempts, failures, outcomes. All are frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from .errors import UpstreamError
from .failure_kinds import KINDS, Kind

Json = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict with str keys."""


JSON_MAX = 10**6
"""Bytes of an upstream's JSON body where no bound is given: decoding it holds the loop."""
OTHER_MAX = 10**7
"""And of any other body."""


class Trace(msgspec.Struct, frozen=True):
    """The W3C trace context that a request runs under (https://www.w3.org/TR/trace-context/)."""

    trace_id: str
    """32 lower-case hex digits."""
    parent_id: str | None = None
    """The inbound parent-id, 16 hex digits; None where the trace begins here."""
    flags: str = "00"
    state: str = ""
    """The inbound ``tracestate``, passed on as it came."""

    def header(self, span_id: str) -> str:
        """The ``traceparent`` of one attempt, whose own id is ``span_id`` (16 hex digits)."""
        return f"00-{self.trace_id}-{span_id}-{self.flags}"


class RequestFacts(msgspec.Struct, frozen=True):
    """Facts of an inbound request. Times are ``trio.current_time()`` seconds."""

    request_id: str
    trace: Trace
    method: str
    path: str
    route: str
    """The route's rule, such as ``/dashboard/<user_id>``; empty where no route matched."""
    started_at: float
    deadline: float = math.inf
    """Absolute; infinite where the request has none."""
    complete_at: float | None = None
    """When the last byte of its body was there; None if it was waited for no body. The deadline counts from then on."""

    @property
    def due_from(self) -> float:
        """When the time until the deadline began."""
        return self.started_at if self.complete_at is None else self.complete_at


class Attempt(msgspec.Struct, frozen=True):
    """Record of an attempt: one physical request of a call on one connection, after its end."""

    number: int
    """1 for the first."""
    replica: str
    """The base URL; for records only, never for clients."""
    started_at: float
    ended_at: float
    status: int | None = None
    """The upstream's status; None if no head came."""
    kind: Kind | None = None
    """Why it failed; None if a whole response came (whatever its status)."""
    reused: bool = False
    """Whether the connection had served before."""
    cause: Literal["first", "retry", "hedge"] = "first"
    """Why it was made."""
    coalesced: bool = False
    """Whether it was made for another call that asked the same, and this one shared it. One that was left before its
    end ends here with the call that left, although it went on for others."""


@dataclass(frozen=True, slots=True)
class PassedBody:
    """An upstream's error body that the route passes on as it is (``pass_body``)."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure: why a call gave no value."""

    kind: Kind
    status: int
    """The answer's status if this failure decides it."""
    detail: str
    """One sentence for records; may name hosts, never shown to clients."""
    received_status: int | None = None
    """The upstream's status, for kind ``status`` (Proxy-Status ``received-status``)."""
    proxy_error: str | None = None
    """The RFC 9209 error type, None where only ``received-status`` speaks."""
    body: PassedBody | None = None
    fields: tuple[tuple[str, str], ...] = ()
    """The fields that belong to ``status``, for the answer that it decides: the upstream's own where its status is
    passed on, or our breaker's Retry-After."""
    forwarded: tuple[tuple[str, str], ...] = ()
    """The fields of the response that the route's answer forwards: its cookies, and where its status is passed on all
    that the route names."""
    public: str = ""
    """One sentence for the client about its own mistake; empty where it made none, and gets the kind's sentence."""

    @classmethod
    def of(
        cls, kind: Kind, detail: str, *, status: int | None = None, proxy_error: str | None = None, public: str = ""
    ) -> Failure:
        """A failure with the status and the Proxy-Status error that the table of kinds gives."""
        rule = KINDS[kind]
        proxy_error = proxy_error or rule.proxy_error
        return cls(kind, rule.status if status is None else status, detail, None, proxy_error, public=public)

    @property
    def of_client(self) -> bool:
        """Whether the client's request is to blame: a value of it cannot be used."""
        return self.public != ""

    @classmethod
    def from_error(cls, error: UpstreamError) -> Failure:
        """The failure that an upstream transport's exception means."""
        failure = cls.of(error.kind, error.detail, proxy_error=error.proxy_error)
        if error.retry_after is None:
            return failure
        return replace(failure, fields=(("retry-after", str(max(1, math.ceil(error.retry_after)))),))


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item of an ``each`` that failed, with every place of the list that it stood at."""

    places: tuple[int, ...]
    failure: Failure


class Outcome(msgspec.Struct, frozen=True):
    """Outcome of a call. A call has exactly one."""

    call: str
    state: Literal["value", "skipped", "failed"]
    value: Json = None
    """What the context and the answer see: the value, or the default (null) of a skipped or failed call."""
    failure: Failure | None = None
    started_at: float | None = None
    """None if it never began."""
    ended_at: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    failed_items: tuple[FailedItem, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    """The response's header fields (of an ``each``: none), for the answer's forwarding and caching rules."""
    answer_status: int | None = None
    """The status that the answer gets from it; None: the route's."""

    @property
    def complete(self) -> bool:
        """Whether nothing of it is missing from the answer."""
        return self.state != "failed" and not self.failed_items

    @property
    def worst(self) -> Failure | None:
        """The failure that speaks for the call: its own, or its first failed item's."""
        if self.failure is not None:
            return self.failure
        return self.failed_items[0].failure if self.failed_items else None

    @property
    def of_client(self) -> bool:
        """Whether it lacks something, and all of that is the client's own mistake."""
        if self.failure is not None:
            return self.failure.of_client
        return bool(self.failed_items) and all(item.failure.of_client for item in self.failed_items)


_NONE: Mapping[str, Any] = MappingProxyType({})


class Inputs(msgspec.Struct, frozen=True):
    """Inputs of a plan: the validated inbound request. Header names are lower-case with hyphens."""

    path: Mapping[str, Json] = _NONE
    query: Mapping[str, Json] = _NONE
    headers: Mapping[str, str] = _NONE
    body: Json = None
    raw_query: bytes = b""
    """The query as it came, for ``forward_query``."""
    cookies: Mapping[str, str] = _NONE
    raw_body: bytes = b""
    content_type: str = ""
    request_id: str = ""
    """What a gateway says as X-Request-Id; empty for nothing."""
    forwarded: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """The fields that a gateway says beside that: Via. Best a ``core.call.FieldBlock``, which many requests have."""
    forwarded_for: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """X-Forwarded-*, apart because an upstream may be set to get none; as before."""
