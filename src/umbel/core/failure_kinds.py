"""Closed list of failure kinds, and what each kind means for the response, retries and the circuit breaker."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Kind(enum.StrEnum):
    """Kind of a failure: why a call gave no value. Records, metrics and problem documents use these words."""

    CONNECT = "connect"
    """No connection to the upstream could be opened."""
    DNS = "dns"
    """The name of the upstream's host could not be resolved."""
    TLS = "tls"
    """TLS with the upstream failed."""
    TIMEOUT = "timeout"
    """The call took longer than its timeout or the request's deadline allows."""
    RESET = "reset"
    """The connection to the upstream broke, or ended before a response."""
    MALFORMED = "malformed"
    """The upstream's response is incomplete or is not valid HTTP."""
    STATUS = "status"
    """The upstream's response has a status that the call does not accept."""
    TOO_BIG = "too-big"
    """The upstream's response exceeds a limit."""
    BAD_BODY = "bad-body"
    """The body of the upstream's response cannot be decoded."""
    OVERFLOW = "overflow"
    """The upstream's bulkhead or connection pool refused the call, at once or after a wait."""
    OVERLOADED = "overloaded"
    """The gateway is at its own limit of requests, uploads, connections or memory."""
    BREAKER_OPEN = "breaker-open"
    """The circuit breaker of the upstream has refused the call."""
    DEPENDENCY = "dependency"
    """A call whose value this call needs has failed."""
    BAD_REQUEST = "bad-request"
    """The request cannot be made from the values at hand, or the client's request is not acceptable."""
    UNAUTHORIZED = "unauthorized"
    """The client's request has no credential that its route accepts."""
    FORBIDDEN = "forbidden"
    """The client's credential does not permit its request."""
    NO_KEYS = "no-keys"
    """The gateway has no keys with which it could verify the client's credential."""
    QUOTA_EXCEEDED = "quota-exceeded"
    """The client's request exceeds a limit of its route."""
    TOO_MANY = "too-many"
    """The list of an ``each`` has more items than ``max_items``."""
    CLIENT_GONE = "client-gone"
    """The client left before the end."""
    CANCELLED = "cancelled"
    """The call was ended because its result was not needed any more."""
    INTERNAL = "internal"
    """A defect of the gateway, of its configuration or of the application."""


class KindRule(NamedTuple):
    """Meaning of one failure kind: a row of ``KINDS``."""

    status: int
    """The status of the response if a required call failed with this kind. A failure may name another status."""
    proxy_error: str | None
    """The ``error`` of Proxy-Status (RFC 9209 section 2.3). A failure may name a more precise one."""
    retryable: bool
    """Whether another attempt may succeed (``reset`` only before the first byte, ``status`` by its status)."""
    counts: bool
    """Whether the failure counts for the upstream's circuit breaker (``status`` only with a 5xx)."""


KINDS: Mapping[Kind, KindRule] = MappingProxyType(
    {
        Kind.CONNECT: KindRule(502, "connection_refused", True, True),
        Kind.DNS: KindRule(502, "dns_error", True, True),
        Kind.TLS: KindRule(502, "tls_protocol_error", False, True),
        Kind.TIMEOUT: KindRule(504, "http_response_timeout", False, True),
        Kind.RESET: KindRule(502, "connection_terminated", True, True),
        Kind.MALFORMED: KindRule(502, "http_protocol_error", False, True),
        Kind.STATUS: KindRule(502, None, True, True),
        Kind.TOO_BIG: KindRule(502, "http_response_body_size", False, False),
        Kind.BAD_BODY: KindRule(502, "http_protocol_error", False, False),
        Kind.OVERFLOW: KindRule(503, "connection_limit_reached", False, False),
        Kind.OVERLOADED: KindRule(503, "connection_limit_reached", False, False),
        Kind.BREAKER_OPEN: KindRule(503, "destination_unavailable", False, False),
        Kind.DEPENDENCY: KindRule(502, None, False, False),
        Kind.BAD_REQUEST: KindRule(502, "http_request_error", False, False),
        Kind.UNAUTHORIZED: KindRule(401, None, False, False),
        Kind.FORBIDDEN: KindRule(403, None, False, False),
        Kind.NO_KEYS: KindRule(503, "destination_unavailable", False, False),
        Kind.QUOTA_EXCEEDED: KindRule(429, None, False, False),
        Kind.TOO_MANY: KindRule(502, "http_request_error", False, False),
        Kind.CLIENT_GONE: KindRule(499, None, False, False),
        Kind.CANCELLED: KindRule(499, None, False, False),
        Kind.INTERNAL: KindRule(500, "proxy_internal_error", False, False),
    }
)

CUT = frozenset({Kind.CLIENT_GONE, Kind.CANCELLED})
"""Kinds of a call that was ended from outside. They say nothing about the upstream and decide no response."""

BREAKS = frozenset({Kind.INTERNAL, Kind.TIMEOUT, Kind.RESET, Kind.MALFORMED})
"""Kinds with which a response that has begun breaks off: a defect or a time limit of the gateway, or an upstream whose
response is passed on while it is received."""
