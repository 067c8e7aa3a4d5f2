"""Failure kinds: what an error, or the cancel of an attempt, counts as."""

from __future__ import annotations

from ...core.call import CallContext
from ...core.errors import UpstreamError
from ...core.failure_kinds import Kind

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""Cancel reason: the client has left."""
LOST = "lost-hedge"
"""Cancel reason: another attempt of the same call has won."""


def kind_of_error(error: Exception) -> Kind:
    """The kind of an attempt that failed with ``error``; INTERNAL, a bug, if that is no ``UpstreamError``."""
    return error.kind if isinstance(error, UpstreamError) else Kind.INTERNAL


def kind_of_cut(reason: str, context: CallContext, started_at: float, now: float) -> Kind:
    """The kind of an attempt that began at ``started_at`` and is cut (cancelled) ``now`` for ``reason``.

    A cut is a ``timeout`` if the call's own limit caused it (without an inbound request: its deadline), or if the
    request's deadline caused it and the attempt had at least half of that time. Any other cut says nothing of the
    upstream.
    """
    if reason == CLIENT_GONE:
        return Kind.CLIENT_GONE
    if reason == LOST or now < context.deadline:
        return Kind.CANCELLED
    request = context.request
    if request is None or context.deadline < request.deadline:
        return Kind.TIMEOUT
    # The request's deadline may have left an innocent late starter no chance: only one that had half of it is to blame.
    return Kind.TIMEOUT if now - started_at >= (request.deadline - request.due_from) / 2 else Kind.CANCELLED
