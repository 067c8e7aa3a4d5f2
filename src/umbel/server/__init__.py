"""The serving side: the embedded server, its settings, and the guard around Hypercorn.

``serve`` runs any ASGI application on trio. It must not know the gateway, which stands below it.
"""

from .limits import Limits
from .serve import serve
from .settings import hypercorn_config

__all__ = ["Limits", "hypercorn_config", "serve"]
