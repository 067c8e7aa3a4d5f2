"""Umbel: a composition gateway for HTTP on trio. One request in, many upstream calls out, one answer back.

The names below are the public façade. Each is loaded when it is first used, so that ``import umbel.logs`` or
``import umbel.upstream`` costs no web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.loading.load import load
    from .config.schema.sections import Config
    from .core.errors import ConfigError, NotRunningError, RequestError, UmbelError, UpstreamError
    from .gateway.app import Umbel

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "NotRunningError",
    "RequestError",
    "Umbel",
    "UmbelError",
    "UpstreamError",
    "__version__",
    "load",
]

_HOMES = {
    "Config": "config.schema.sections",
    "ConfigError": "core.errors",
    "NotRunningError": "core.errors",
    "RequestError": "core.errors",
    "Umbel": "gateway.app",
    "UmbelError": "core.errors",
    "UpstreamError": "core.errors",
    "load": "config.loading.load",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
