"""The serving side: the embedded server, its settings, and the guard around Hypercorn.

``serve`` runs any ASGI application on trio. It must not know the gateway, which stands below it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .limits import Limits
    from .serving import serve
    from .settings import hypercorn_config

__all__ = ["Limits", "hypercorn_config", "serve"]

_HOMES = {"Limits": ".limits", "hypercorn_config": ".settings", "serve": ".serving"}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562): a command that only reads a configuration needs no server."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value
