"""The failure kind of an attempt that ended with an error, or that was cut: ended by this side before its time."""

from __future__ import annotations

from ...core.call import CallContext
from ...core.errors import UpstreamError
from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""Cancel reason: the client has left."""
LOST = "lost-hedge"
"""Cancel reason: another attempt of the same call has won."""
STREAM_LIMIT = "no response within the time limits of the call"
"""Cancel reason: a limit of ``core.call.StreamLimits`` has passed before the head of the response."""


def kind_of_error(error: Exception) -> Kind:
    """The kind of an attempt that failed with ``error``.

    Returns:
        the kind of an ``UpstreamError``; CLIENT_GONE for a request body that ended with ``ClientGoneError``; else
        INTERNAL.
    """
    if isinstance(error, UpstreamError):
        return error.kind
    return Kind.CLIENT_GONE if isinstance(error, ClientGoneError) else Kind.INTERNAL


def kind_of_cut(reason: str, context: CallContext, started_at: float, now: float) -> Kind:
    """The kind of an attempt that began at ``started_at`` and is cut ``now`` with the cancel ``reason``.

    Returns:
        CLIENT_GONE for the reason CLIENT_GONE, CANCELLED for LOST, TIMEOUT for STREAM_LIMIT. Otherwise TIMEOUT if the
        call's own limit has passed (without an inbound request: the call's deadline), or if the deadline of the inbound
        request has passed and the attempt lasted for at least half of the time from ``due_from`` to that deadline. Else
        CANCELLED, which says nothing about the upstream.
    """
    if reason == CLIENT_GONE:
        return Kind.CLIENT_GONE
    if reason == STREAM_LIMIT:
        return Kind.TIMEOUT
    if reason == LOST or now < context.deadline:
        return Kind.CANCELLED
    request = context.request
    if request is None or context.deadline < request.deadline:
        return Kind.TIMEOUT
    # An attempt that began late in the request's time had little time itself; its upstream is not to blame.
    return Kind.TIMEOUT if now - started_at >= (request.deadline - request.due_from) / 2 else Kind.CANCELLED
