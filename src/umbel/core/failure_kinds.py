"""Closed list of failure kinds, and what each kind means for the response, retries and the circuit breaker."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Kind(enum.StrEnum):
    """Kind of a failure: why a call gave no value. Records, metrics and problem documents use these words."""

    CONNECT = "connect"
    DNS = "dns"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    MALFORMED = "malformed"
    STATUS = "status"
    TOO_BIG = "too-big"
    BAD_BODY = "bad-body"
    OVERFLOW = "overflow"
    OVERLOADED = "overloaded"
    BREAKER_OPEN = "breaker-open"
    DEPENDENCY = "dependency"
    BAD_REQUEST = "bad-request"
    TOO_MANY = "too-many"
    CLIENT_GONE = "client-gone"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


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
        Kind.TOO_MANY: KindRule(502, "http_request_error", False, False),
        Kind.CLIENT_GONE: KindRule(499, None, False, False),
        Kind.CANCELLED: KindRule(499, None, False, False),
        Kind.INTERNAL: KindRule(500, "proxy_internal_error", False, False),
    }
)

CUT = frozenset({Kind.CLIENT_GONE, Kind.CANCELLED})
"""Kinds of a call that was ended from outside. They say nothing about the upstream and decide no response."""
