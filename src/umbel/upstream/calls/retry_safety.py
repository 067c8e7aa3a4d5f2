"""Retry safety: whether a request may be sent again after an attempt has ended, and what its end is to the policies."""

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
    """Whether no byte of the request was sent, so that the upstream cannot have acted on it and any method is safe.

    So it is where there was no address or no connection, or the TLS handshake failed. Other failures of TLS are not
    among these: with TLS 1.3 the alert of a server that refuses our certificate may come after the request was sent.
    """
    return result.kind in (Kind.DNS, Kind.CONNECT)


def result_of(
    status: int | None, fields: Iterable[Field], error: Exception | None, *, others: Callable[[], bool]
) -> AttemptResult:
    """How an attempt ended, as the policies take it: with an error, or with a response.

    Args:
        others: returns whether the upstream has a replica that the call has not tried.
    """
    if error is not None:
        # To the policies it is a connection that did not come about; only records say what failed. What a replica
        # refuses in the handshake, such as a certificate, it refuses again: only another one may mend that.
        if isinstance(error, TlsBrokeOff | TlsTimedOut) or (isinstance(error, HandshakeFailed) and others()):
            return AttemptResult(Kind.CONNECT)
        return AttemptResult(kind_of_error(error), untouched=getattr(error, "untouched", False))
    # Looking for a field costs more than all the rest here, and a success is not retried.
    if status is None or status < 400:
        return AttemptResult(None, status)
    return AttemptResult(None, status, False, _retry_after({name: value for _, name, value in fields}))


def _retry_after(fields: dict[bytes, bytes]) -> float | None:
    """Seconds that Retry-After asks for (RFC 9110 section 10.2.3); None if it is absent or invalid."""
    value = fields.get(b"retry-after", b"").decode("latin-1").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _date(value)
    if until is None:
        return None
    # The upstream's own clock is the one that it means; without its Date, ours has to do.
    return max(0.0, until - (_date(fields.get(b"date", b"").decode("latin-1")) or time.time()))


def _date(value: str) -> float | None:
    """An HTTP date as seconds of the epoch; None if the text is no date."""
    try:
        date = parsedate_to_datetime(value)
        # A date that says -0000 knows no zone; HTTP has but one.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
