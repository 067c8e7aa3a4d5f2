"""HTTP server on trio for ASGI applications: HTTP/1.1, HTTP/2 and WebSocket, with TLS or without.

``serve`` runs the server in a trio program. ``install_in_hypercorn`` makes the ``hypercorn`` command use it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hypercorn import install as install_in_hypercorn
    from .limits.server_limits import Limits
    from .process.settings import hypercorn_config
    from .serving import serve

__all__ = ["Limits", "hypercorn_config", "install_in_hypercorn", "serve"]

_HOMES = {
    "Limits": (".limits.server_limits", "Limits"),
    "hypercorn_config": (".process.settings", "hypercorn_config"),
    "install_in_hypercorn": (".hypercorn", "install"),
    "serve": (".serving", "serve"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): a command that only reads a configuration needs no server."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = home
    value = getattr(import_module(module, __name__), attribute)
    globals()[name] = value
    return value
