"""What the end of an attempt or a call means: its kind, and whether its upstream is to blame.

Asked by the layers that record and judge (attempt, breaker, balance, bulkhead), so that all of them tell a timeout that
counts from a cancel that does not in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import trio

from ..errors import UpstreamError
from ..kinds import Kind
from ..model import CallFacts
from ..policy.verdict import failed
from .errors import BudgetSpent

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""The reason that a cancel bears when the client has left."""
LOST = "lost-hedge"
"""The reason that a cancel bears when another attempt of the call has won."""


LIMIT = "umbel.limit"
"""The key of the time at which a ``Timeout`` layer above cuts the request, in ``httpx.Request.extensions``."""


def kind_of_end(error: BaseException, facts: CallFacts | None, started_at: float, limit: float | None = None) -> Kind:
    """The kind of an attempt or a call that began at ``started_at`` and ends now with ``error``.

    A cancel is a ``timeout`` where the call's own limit made it (without ``facts``: ``limit``), or the route's deadline
    after at least half of that deadline; every other cancel says nothing of the upstream.
    """
    if isinstance(error, UpstreamError):
        return error.kind
    cancels = list(_cancels(error))
    if not cancels:
        return _kind_of_httpx(error)
    if any(each.reason == CLIENT_GONE for each in cancels):
        return Kind.CLIENT_GONE
    if overtaken(error):
        return Kind.CANCELLED  # Also if the deadline came in the same moment.
    now = trio.current_time()
    if facts is None:
        return Kind.TIMEOUT if limit is not None and now >= limit else Kind.CANCELLED
    if now < facts.deadline:
        return Kind.CANCELLED
    request = facts.request
    if facts.deadline < request.deadline:
        return Kind.TIMEOUT  # The call's own limit.
    # The route's deadline may have left an innocent late starter no chance: only who had half of it is to blame.
    return Kind.TIMEOUT if now - started_at >= (request.deadline - request.started_at) / 2 else Kind.CANCELLED


def limit_of(request: httpx.Request) -> float | None:
    """When a ``Timeout`` layer above cuts the request."""
    limit: float | None = request.extensions.get(LIMIT)
    return limit


def failed_by(
    error: BaseException, facts: CallFacts | None, started_at: float, limit: float | None = None
) -> bool | None:
    """Whether it failed by its upstream's fault, as ``policy.verdict.failed`` says; None: that tells nothing."""
    if isinstance(error, BudgetSpent):
        return None  # A timeout, but of an attempt that was never made.
    return failed(kind_of_end(error, facts, started_at, limit), None)


def overtaken(error: BaseException) -> bool:
    """Whether an attempt was cut because another one of its call has won."""
    return any(each.reason == LOST for each in _cancels(error))


def _kind_of_httpx(error: BaseException) -> Kind:
    """The kind of an exception of a transport that is not ours."""
    if isinstance(error, httpx.PoolTimeout):
        return Kind.OVERFLOW
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Kind.CONNECT
    if isinstance(error, httpx.TimeoutException):
        return Kind.TIMEOUT
    if isinstance(error, httpx.NetworkError):
        return Kind.RESET
    if isinstance(error, (httpx.RemoteProtocolError, httpx.DecodingError)):
        return Kind.MALFORMED
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        return Kind.BAD_REQUEST
    return Kind.INTERNAL


def _cancels(error: BaseException) -> Iterator[trio.Cancelled]:
    if isinstance(error, trio.Cancelled):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _cancels(each)
