"""The identity of the request that runs the current code, for handlers and views."""

from __future__ import annotations

from contextvars import ContextVar

from ..core.errors import NotRunningError
from ..core.identity import Identity

_current: ContextVar[Identity | None] = ContextVar("umbel.auth.identity", default=None)


def current() -> Identity:
    """The identity of the current request, as the ``auth`` of its route has verified it.

    It may be called by a handler of ``@app.compose``, a view, and the tasks and threads that these start.

    Raises:
        NotRunningError: no request is handled here, or its route has no ``auth``.
    """
    identity = _current.get()
    if identity is None:
        raise NotRunningError("there is no identity: no request is handled here, or its route has no auth")
    return identity


def set_current(identity: Identity | None) -> None:
    """Set the identity for the current context variables, which must be those of one request."""
    _current.set(identity)
