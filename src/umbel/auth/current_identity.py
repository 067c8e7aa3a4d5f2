"""The identity of the request that runs the current code, for handlers and views."""

from __future__ import annotations

from contextvars import ContextVar
from copy import deepcopy

from msgspec.structs import replace

from ..core.errors import NotRunningError
from ..core.identity import Identity

_current: ContextVar[Identity | None] = ContextVar("umbel.auth.identity", default=None)
"""The identity whose claims other requests share."""
_own: ContextVar[tuple[Identity, Identity] | None] = ContextVar("umbel.auth.own_identity", default=None)
"""The identity of ``_current``, and the same with claims of its own."""


def current() -> Identity:
    """The identity of the current request, as the ``auth`` of its route has verified it.

    It may be called by a handler of ``@app.compose``, a view, and the tasks and threads that these start. The claims
    are a copy, so code that changes them changes nothing for other requests.

    Raises:
        NotRunningError: no request is handled here, or its route has no ``auth``.
    """
    identity = _current.get()
    if identity is None:
        raise NotRunningError("there is no identity: no request is handled here, or its route has no auth")
    own = _own.get()
    if own is None or own[0] is not identity:
        own = identity, replace(identity, claims=deepcopy(dict(identity.claims)))
        _own.set(own)
    return own[1]


def set_current(identity: Identity | None) -> None:
    """Set the identity for the current context variables, which must be those of one request."""
    _current.set(identity)
