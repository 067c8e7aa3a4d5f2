"""What the end of an attempt means: its kind, where it ended with an error or was cut."""

from __future__ import annotations

from ...core.call import CallContext
from ...core.errors import UpstreamError
from ...core.failure_kinds import Kind

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""The reason that a cancel bears when the client has left."""
LOST = "lost-hedge"
"""The reason of the end of an attempt when another attempt of its call has won."""


def kind_of_error(error: Exception) -> Kind:
    """The kind of an attempt that failed with ``error``. What is no error of an upstream is a bug."""
    return error.kind if isinstance(error, UpstreamError) else Kind.INTERNAL


def kind_of_cut(reason: str, context: CallContext, started_at: float, now: float) -> Kind:
    """The kind of an attempt that began at ``started_at`` and is cut ``now``.

    A cut is a ``timeout`` where the call's own limit made it (without an inbound request: its deadline), or the
    request's deadline after at least half of that deadline; every other cut says nothing of the upstream.
    """
    if reason == CLIENT_GONE:
        return Kind.CLIENT_GONE
    if reason == LOST or now < context.deadline:
        return Kind.CANCELLED
    request = context.request
    if request is None or context.deadline < request.deadline:
        return Kind.TIMEOUT
    # The request's deadline may have left an innocent late starter no chance: only who had half of it is to blame.
    return Kind.TIMEOUT if now - started_at >= (request.deadline - request.due_from) / 2 else Kind.CANCELLED
