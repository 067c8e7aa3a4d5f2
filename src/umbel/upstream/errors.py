"""Errors of calls and attempts: each is an ``UpstreamError`` with a kind, and also the corresponding httpx exception.

The messages are for records and may name hosts; they must never be sent to a client.
"""

# ruff: noqa: N818 - named by the event, as httpx's (ReadTimeout) and trio's (Cancelled) exceptions are

from __future__ import annotations

import errno
import os
import ssl

import httpx

from ..core.errors import UpstreamError
from ..core.failure_kinds import Kind
from ..core.httpx_calls.transport_caller import CallTimedOut as CallTimedOut
from ..http1.errors import MessageError, MessageTooLargeError, NoMessageError


class ConnectFailed(UpstreamError, httpx.ConnectError):
    """connect(2) failed: refused, unroutable, no such Unix socket."""

    kind = Kind.CONNECT


class AddressRefused(ConnectFailed):
    """The name has only prohibited addresses (``replicas.address.is_prohibited``)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="destination_ip_prohibited")


class ConnectTimedOut(UpstreamError, httpx.ConnectTimeout):
    """No connection within the connect timeout."""

    kind = Kind.CONNECT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_timeout")


class NameFailed(UpstreamError, httpx.ConnectError):
    """The name of the host could not be resolved, or has no address."""

    kind = Kind.DNS


class NameTimedOut(UpstreamError, httpx.ConnectTimeout):
    """The name was not resolved within the connect timeout."""

    kind = Kind.DNS

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="dns_timeout")


class TlsFailed(UpstreamError, httpx.ConnectError):
    """The TLS handshake failed, or TLS failed later, for example by an alert of the peer.

    A handshake that takes too long is a ``TlsTimedOut``.
    """

    kind = Kind.TLS


class HandshakeFailed(TlsFailed):
    """The TLS handshake failed; no byte of the request was sent."""


class TlsBrokeOff(HandshakeFailed):
    """The connection ended during the TLS handshake, without an alert."""


class TlsTimedOut(UpstreamError, httpx.ConnectTimeout):
    """The TLS handshake did not end within the connect timeout."""

    kind = Kind.TLS


class ReadTimedOut(UpstreamError, httpx.ReadTimeout):
    """No head, or no part of a body, was received within httpx's ``read`` timeout."""

    kind = Kind.TIMEOUT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_read_timeout")


class WriteTimedOut(UpstreamError, httpx.WriteTimeout):
    """The request, or a piece of its body, could not be sent within httpx's ``write`` timeout."""

    kind = Kind.TIMEOUT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_write_timeout")


class BudgetSpent(UpstreamError, httpx.TimeoutException):
    """The call's time was used up: its deadline had passed before the attempt began, so the attempt sent nothing."""

    kind = Kind.TIMEOUT


class ConnectionReset(UpstreamError, httpx.ReadError):
    """The connection broke, ended before a response, or was closed by this side.

    Args:
        untouched: whether no byte of a response was received. If so, an idempotent request may be sent again.
    """

    kind = Kind.RESET

    def __init__(self, detail: str, *, untouched: bool = False) -> None:
        super().__init__(detail)
        self.untouched = untouched


class Malformed(UpstreamError, httpx.RemoteProtocolError):
    """The response is not valid HTTP/1.1, or is incomplete (``http_response_incomplete``)."""

    kind = Kind.MALFORMED


class TooBig(UpstreamError, httpx.RemoteProtocolError):
    """The head, the trailer section or the body of the response is over its limit. Reading stopped at the limit."""

    kind = Kind.TOO_BIG


class Overflow(UpstreamError, httpx.PoolTimeout):
    """The bulkhead or the pool refused the call.

    The reason is one of these: the queue is full, the call has waited for too long, the upstream completes no calls, or
    a limit does not admit the call in time.

    Args:
        retry_after: seconds until the limit would admit the call, if nothing else is spent; None: not known, or never.
        limit: the section ``[limits.NAME]`` that refused the call; empty: none did.
    """

    kind = Kind.OVERFLOW

    def __init__(self, detail: str, *, retry_after: float | None = None, limit: str = "") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.limit = limit


class BreakerOpen(UpstreamError, httpx.ConnectError):
    """The upstream's breaker is open or half-open and refused the call. Nothing was sent.

    Args:
        retry_after: seconds until a call may be admitted; None if that depends on a probe under way.
    """

    kind = Kind.BREAKER_OPEN

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class BadRequest(UpstreamError, httpx.LocalProtocolError):
    """The request cannot be written as HTTP/1.1, its body is not as long as its Content-Length, or a URL is invalid."""

    kind = Kind.BAD_REQUEST


def incomplete(detail: str) -> Malformed:
    """The error of an incomplete response."""
    return Malformed(detail, proxy_error="http_response_incomplete")


def response_failed(error: MessageError) -> UpstreamError:
    """The ``UpstreamError`` of an attempt whose response cannot be read because of ``error``."""
    if isinstance(error, NoMessageError):
        return ConnectionReset(error.detail, untouched=True)
    kind = TooBig if isinstance(error, MessageTooLargeError) else Malformed
    return kind(error.detail, proxy_error=error.proxy_error)


# Names of RFC 9209 section 2.3 for errors of connect(2). Other errors get the usual name of their kind.
_CONNECT_ERRORS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ETIMEDOUT: "connection_timeout",
    errno.ECONNRESET: "connection_terminated",
    errno.EHOSTUNREACH: "destination_ip_unroutable",
    errno.ENETUNREACH: "destination_ip_unroutable",
    errno.ENETDOWN: "destination_ip_unroutable",
    errno.ENOENT: "destination_unavailable",
    errno.EACCES: "destination_unavailable",
    errno.ENOTSOCK: "destination_unavailable",
    # This process has no file descriptors or local ports left.
    errno.EMFILE: "connection_limit_reached",
    errno.ENFILE: "connection_limit_reached",
    errno.EADDRNOTAVAIL: "connection_limit_reached",
}


def connect_failed(error: OSError, where: str) -> ConnectFailed:
    """The error of a connect(2) to the address ``where`` that failed with ``error``."""
    # Not ``error.strerror``: trio's text repeats the address.
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return ConnectFailed(f"cannot connect to {where}: {reason}", proxy_error=_CONNECT_ERRORS.get(error.errno or 0))


def tls_failed(error: BaseException | None, where: str, kind: type[TlsFailed] = TlsFailed) -> TlsFailed:
    """The error of a TLS connection to ``where`` that failed with ``error``; None: the peer closed the connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return kind(f"{where}: {error.verify_message}", proxy_error="tls_certificate_error")
    reason: str | None = getattr(error, "reason", None)
    if reason is not None and "_ALERT_" in reason:
        return kind(f"{where}: TLS alert {reason}", proxy_error="tls_alert_received")
    return kind(f"{where}: TLS failed: {reason or 'the peer closed the connection'}")


def handshake_failed(error: BaseException | None, where: str) -> HandshakeFailed:
    """The error of a TLS handshake with ``where`` that failed with ``error``; None: the peer closed the connection."""
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return TlsBrokeOff(f"{where}: the connection ended during the TLS handshake")
    failed = tls_failed(error, where, HandshakeFailed)
    assert isinstance(failed, HandshakeFailed)
    return failed


def copy_of_failure(failure: Exception) -> Exception:
    """A copy of an exception, with the same type, message and attributes, and without traceback, cause and context."""
    kind = type(failure)
    # Not by calling the class: its ``__init__`` may have other parameters than ``args``.
    copy = kind.__new__(kind, *failure.args)
    copy.args = failure.args
    copy.__dict__.update(failure.__dict__)
    return copy
