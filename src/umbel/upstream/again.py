"""May a request be sent again, and what does the end of its last attempt say of that?

Asked by the layers that make more than one attempt of a call (retry, hedge). It translates only: what an end is worth
the policies decide.
"""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx
import trio

from ..errors import UpstreamError
from ..kinds import Kind
from ..policy.retry import Ending
from .ending import kind_of_end
from .outgoing import IDEMPOTENT

FAILURES = (UpstreamError, httpx.RequestError)
"""What a transport raises where an attempt failed. Anything else is a bug, and no attempt mends it."""

CLOSE_SECONDS = 1.0
"""How long closing a response may take that nobody wants any more."""

_SECONDS = re.compile(r"[0-9]{1,9}")


def repeatable(request: httpx.Request) -> bool:
    """Whether sending ``request`` twice means the same as once (RFC 9110 section 9.2.2), and can be done.

    An Idempotency-Key says so of any method. A body must be in memory: a stream is gone once it was sent.
    """
    if request.method not in IDEMPOTENT and "idempotency-key" not in request.headers:
        return False
    return isinstance(request.stream, httpx.ByteStream)


def untold(request: httpx.Request, ending: Ending) -> bool:
    """Whether no byte of ``request`` was sent, so that its upstream cannot have acted on it, and it can be sent.

    There was no address, or no connection. A failure of TLS is not among these: with TLS 1.3 the alert of a server that
    refuses our certificate may come after the request was sent.
    """
    return ending.kind in (Kind.DNS, Kind.CONNECT) and isinstance(request.stream, httpx.ByteStream)


def ending_of(outcome: httpx.Response | Exception) -> Ending:
    """How an attempt ended, in the words of the policies. An exception is one of FAILURES."""
    if isinstance(outcome, httpx.Response):
        status = outcome.status_code
        # Looking for a field costs more than all the rest here, and nobody waits before repeating a success.
        return Ending(None, status) if status < 400 else Ending(None, status, False, _retry_after(outcome.headers))
    # No cancel is among FAILURES, so neither the call's facts nor its times matter.
    return Ending(kind_of_end(outcome, None, 0.0), untouched=getattr(outcome, "untouched", False))


async def discard(response: httpx.Response) -> None:
    """Close a response that nobody wants, if it is still open. Cancelled, it is closed all the same."""
    if not response.is_closed:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await response.aclose()


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that Retry-After asks for (RFC 9110 section 10.2.3); None if it is not there or says nothing."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _date(value)
    if until is None:
        return None
    # The upstream's own clock is the one that it means; without its Date, ours has to do.
    return max(0.0, until - (_date(headers.get("date", "")) or time.time()))


def _date(value: str) -> float | None:
    """An HTTP date as seconds of the epoch; None if it is none."""
    try:
        date = parsedate_to_datetime(value)
        # A date that says -0000 knows no zone; HTTP has but one.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
