"""Where a gateway finds those with whom its limits count together: the worker of a master sets it.

A context variable holds it, and no attribute of the application: the server of a worker sees only the outermost ASGI
application, which may wrap gateways in any way (a function, middleware, a mount of another framework).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .limiter import Limiter


class LimitSharing(Protocol):
    """Lets limiters of this process count together with those of other processes."""

    def share(self, limiters: Iterable[Limiter]) -> AbstractContextManager[None]:
        """Context manager: the limiters count together with those of other processes."""
        ...


_sharing: ContextVar[LimitSharing | None] = ContextVar("umbel.limits.sharing", default=None)


@contextmanager
def sharing_by(sharing: LimitSharing) -> Iterator[None]:
    """Context manager: gateways that are opened within, or in tasks that begin within, share their limits so."""
    token = _sharing.set(sharing)
    try:
        yield
    finally:
        _sharing.reset(token)


def shared(limiters: Iterable[Limiter]) -> AbstractContextManager[None]:
    """Context manager: those of the limiters with ``shared = "machine"`` count together with other processes.

    Without ``sharing_by``, each counts alone.
    """
    sharing = _sharing.get()
    if sharing is None:
        return nullcontext()
    return sharing.share([each for each in limiters if each.section.shared == "machine"])
