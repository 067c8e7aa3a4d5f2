"""Retry safety: the result of an attempt for the policies, and whether the request may have reached the upstream."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

from ...core.failure_kinds import Kind
from ...core.http.header_field import Field
from ...policy.retry import AttemptResult
from ..errors import HandshakeFailed, TlsBrokeOff, TlsTimedOut
from .failure_kind import kind_of_error

_SECONDS = re.compile(r"[0-9]{1,9}")


def is_unsent(result: AttemptResult) -> bool:
    """Whether it is certain that no byte of the request was sent. If so, a request of any method may be sent again.

    It is certain if the name had no address, if no connection was made, and after those failures of the TLS handshake
    that ``result_of`` gives the kind CONNECT. It is not certain after other failures of TLS: in TLS 1.3 the alert of a
    server that refuses the client certificate may arrive after the request was sent.
    """
    return result.kind in (Kind.DNS, Kind.CONNECT)


def result_of(
    status: int | None, fields: Iterable[Field], error: Exception | None, *, others: Callable[[], bool]
) -> AttemptResult:
    """The result of an attempt for the retry and hedge policies.

    Args:
        status: status of the response; None without a response.
        fields: header fields of the response.
        error: None with a response.
        others: returns whether the upstream has a replica that the call has not tried.
    """
    if error is not None:
        # For the policies a failed TLS handshake is a failed connect; records keep the kind TLS. A replica that refuses
        # the handshake (a certificate, say) refuses it again, so that failure is retryable only on another replica.
        if isinstance(error, TlsBrokeOff | TlsTimedOut) or (isinstance(error, HandshakeFailed) and others()):
            return AttemptResult(Kind.CONNECT)
        return AttemptResult(kind_of_error(error), untouched=getattr(error, "untouched", False))
    # A success is not retried, so its fields need no search.
    if status is None or status < 400:
        return AttemptResult(None, status)
    return AttemptResult(None, status, False, _retry_after({name: value for _, name, value in fields}))


def _retry_after(fields: dict[bytes, bytes]) -> float | None:
    """Seconds of the field Retry-After (RFC 9110 section 10.2.3); None if the field is absent or invalid."""
    value = fields.get(b"retry-after", b"").decode("latin-1").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _date(value)
    if until is None:
        return None
    # Relative to the upstream's clock (its Date field); without a Date, relative to the local clock.
    return max(0.0, until - (_date(fields.get(b"date", b"").decode("latin-1")) or time.time()))


def _date(value: str) -> float | None:
    """An HTTP date as seconds since the epoch; None if the text is no date."""
    try:
        date = parsedate_to_datetime(value)
        # A date with the zone -0000 is parsed without a zone. HTTP dates are UTC.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
