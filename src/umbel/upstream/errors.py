"""Errors of attempts: each is an ``UpstreamError`` of a kind and the httpx exception that fits.

A message is for records and may name hosts, so it must never be sent to a client.
"""

# ruff: noqa: N818 - named by what happened, as httpx's own (ReadTimeout) and trio's (Cancelled) are

from __future__ import annotations

import errno
import os
import ssl

import httpx

from ..core.errors import UpstreamError
from ..core.failure_kinds import Kind
from ..core.transport_caller import CallTimedOut as CallTimedOut
from ..http1.errors import MessageError, MessageTooLargeError, NoMessageError


class ConnectFailed(UpstreamError, httpx.ConnectError):
    """No connection: refused, unroutable, or the path of a Unix socket leads nowhere."""

    kind = Kind.CONNECT


class AddressRefused(ConnectFailed):
    """The name leads only to addresses that must not be connected to."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="destination_ip_prohibited")


class ConnectTimedOut(UpstreamError, httpx.ConnectTimeout):
    """No connection within the connect limit."""

    kind = Kind.CONNECT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_timeout")


class NameFailed(UpstreamError, httpx.ConnectError):
    """The host's name has no address."""

    kind = Kind.DNS


class NameTimedOut(UpstreamError, httpx.ConnectTimeout):
    """The name service did not answer within the connect limit."""

    kind = Kind.DNS

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="dns_timeout")


class TlsFailed(UpstreamError, httpx.ConnectError):
    """The TLS handshake failed, or the peer ended TLS with an alert."""

    kind = Kind.TLS


class HandshakeFailed(TlsFailed):
    """The TLS handshake failed: nothing of the request was sent."""


class TlsBrokeOff(HandshakeFailed):
    """The connection ended during the TLS handshake, without an alert."""


class TlsTimedOut(UpstreamError, httpx.ConnectTimeout):
    """The TLS handshake did not end within the connect limit."""

    kind = Kind.TLS


class ReadTimedOut(UpstreamError, httpx.ReadTimeout):
    """Nothing came for as long as httpx's ``read`` timeout allows."""

    kind = Kind.TIMEOUT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_read_timeout")


class WriteTimedOut(UpstreamError, httpx.WriteTimeout):
    """Nothing could be sent for as long as httpx's ``write`` timeout allows."""

    kind = Kind.TIMEOUT

    def __init__(self, detail: str) -> None:
        super().__init__(detail, proxy_error="connection_write_timeout")


class BudgetSpent(UpstreamError, httpx.TimeoutException):
    """Nothing of the call's time was left, so the attempt was not made."""

    kind = Kind.TIMEOUT


class ConnectionReset(UpstreamError, httpx.ReadError):
    """The connection broke, or ended before a byte of the response had come.

    ``untouched`` says the latter: not one byte of a response came, so the request may be sent anew if it is idempotent.
    """

    kind = Kind.RESET

    def __init__(self, detail: str, *, untouched: bool = False) -> None:
        super().__init__(detail)
        self.untouched = untouched


class Malformed(UpstreamError, httpx.RemoteProtocolError):
    """The response is not what HTTP/1.1 allows, or is cut short (``http_response_incomplete``)."""

    kind = Kind.MALFORMED


class TooBig(UpstreamError, httpx.RemoteProtocolError):
    """The response is larger than the limits allow. Reading stopped at the limit."""

    kind = Kind.TOO_BIG


class Overflow(UpstreamError, httpx.PoolTimeout):
    """Too many calls in flight, and no place (or no more time) to wait in the queue."""

    kind = Kind.OVERFLOW


class BreakerOpen(UpstreamError, httpx.ConnectError):
    """The upstream's breaker is open: nothing was sent.

    ``retry_after`` says in how many seconds it may be asked again; None where that hangs on a probe under way.
    """

    kind = Kind.BREAKER_OPEN

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class BadRequest(UpstreamError, httpx.LocalProtocolError):
    """The request cannot be written as HTTP/1.1: our side's fault, and nothing of it was sent."""

    kind = Kind.BAD_REQUEST


def incomplete(detail: str) -> Malformed:
    """The error of a message that ends before its end."""
    return Malformed(detail, proxy_error="http_response_incomplete")


def response_failed(error: MessageError) -> UpstreamError:
    """The error of an attempt whose response cannot be read, for ``error``."""
    if isinstance(error, NoMessageError):
        return ConnectionReset(error.detail, untouched=True)
    kind = TooBig if isinstance(error, MessageTooLargeError) else Malformed
    return kind(error.detail, proxy_error=error.proxy_error)


# RFC 9209 section 2.3 has a name for most of what connect(2) says; what is not here is the kind's own.
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
    # Our own descriptors or local ports have run out.
    errno.EMFILE: "connection_limit_reached",
    errno.ENFILE: "connection_limit_reached",
    errno.EADDRNOTAVAIL: "connection_limit_reached",
}


def connect_failed(error: OSError, where: str) -> ConnectFailed:
    """The error of a connect(2) that failed with ``error``; ``where`` is the address."""
    # Not its strerror: trio's names the address once more.
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return ConnectFailed(f"cannot connect to {where}: {reason}", proxy_error=_CONNECT_ERRORS.get(error.errno or 0))


def tls_failed(error: BaseException | None, where: str, kind: type[TlsFailed] = TlsFailed) -> TlsFailed:
    """The error of a TLS connection to ``where`` that ended with ``error`` (None: the peer just left)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return kind(f"{where}: {error.verify_message}", proxy_error="tls_certificate_error")
    reason: str | None = getattr(error, "reason", None)
    if reason is not None and "_ALERT_" in reason:
        return kind(f"{where}: TLS alert {reason}", proxy_error="tls_alert_received")
    return kind(f"{where}: TLS failed: {reason or 'the peer left'}")


def handshake_failed(error: BaseException | None, where: str) -> HandshakeFailed:
    """The same for a handshake."""
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return TlsBrokeOff(f"{where}: the connection ended during the TLS handshake")
    failed = tls_failed(error, where, HandshakeFailed)
    assert isinstance(failed, HandshakeFailed)
    return failed


def copy_of_failure(failure: Exception) -> Exception:
    """An exception of the same type that says the same, and has been raised nowhere."""
    kind = type(failure)
    # Not by calling the class: its __init__ may want what its args do not hold.
    copy = kind.__new__(kind, *failure.args)
    copy.args = failure.args
    copy.__dict__.update(failure.__dict__)
    return copy
