"""Umbel: a composition gateway for HTTP on trio. One inbound request, several upstream calls, one response.

A gateway is an ``Umbel`` application, either described by a file or written in Python::

    from umbel import Umbel

    app = Umbel.from_file("umbel.toml")  # the routes of the file


    @app.compose("/report/<int:user_id>", deadline=0.8)  # and a route in Python
    async def report(compose, user_id):
        async with compose.gather() as g:  # when the block ends, every call has ended
            profile = g.get("users", f"/users/{user_id}", name="profile")
            orders = g.get("orders", "/orders", params={"user_id": user_id}, default=[])
        return {"name": profile.value["name"], "orders": len(orders.value)}


    app.run()

Public names:

- ``Umbel``: the application, a ``QuartTrio`` whose routes can be compositions.
- ``load``: read a configuration file and check it; returns a ``Config``.
- ``Config``: a validated configuration.
- ``UmbelError``: base of these exceptions and of some others, but not of all that Umbel raises:

  - ``ConfigError``: the configuration cannot be used; it holds every mistake that was found.
  - ``NotRunningError``: an object was used outside of the ``async with`` or lifespan that runs it.
  - ``RequestError``: a client's request is answered with an error status.
  - ``UpstreamError``: a call got no usable response from its upstream.

Further public packages are ``umbel.upstream`` (an httpx transport with retries, hedging and a circuit breaker),
``umbel.logs`` (structured logs on trio), ``umbel.observe`` (the live tasks of any trio program in a browser) and
``umbel.server`` (the server). Names are imported on first use, so ``umbel.upstream``, ``umbel.logs`` and
``umbel.observe`` work without a web framework.
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
    """Import a public name from its module on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
