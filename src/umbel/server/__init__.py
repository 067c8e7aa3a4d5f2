"""The serving side: the embedded server, its settings, and the guard around Hypercorn.

``serve`` runs any ASGI application on trio. It must not know the gateway, which stands below it.
"""

from typing import TYPE_CHECKING, Any

from .limits import Limits
from .serve import serve

if TYPE_CHECKING:
    from .settings import hypercorn_config

__all__ = ["Limits", "hypercorn_config", "serve"]


def __getattr__(name: str) -> Any:
    """Load what reads files only for who asks for it: the checks of a file cost more to import than the server."""
    if name == "hypercorn_config":
        from .settings import hypercorn_config

        return hypercorn_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
