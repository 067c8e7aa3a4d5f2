"""Tests of a gateway without sockets and in virtual time.

``gateway`` runs a whole gateway in memory, with scripted upstreams, and gives an httpx client for it::

    from umbel.testing import delay, json


    async def test_the_dashboard(umbel_gateway):
        users, orders = json({"name": "Ada"}), delay(3).then(json([]))
        async with umbel_gateway("umbel.toml", {"users": users, "orders": orders}) as client:
            reply = await client.get("/dashboard/42")
        assert reply.json() == {"name": "Ada", "orders": []}
        assert client.trace().calls["orders"].kind == "timeout"

Public names:

- ``gateway``: the gateway; ``GatewayClient``: its client, with ``trace``, ``traces`` and ``received``.
- ``json``, ``text``, ``content``, ``stream``, ``sse``: scripted answers; ``fail``, ``hang``: scripted failures;
  ``delay``: a wait before what follows. ``Script``: their type, with ``then`` and ``times``.
- ``cassette``: what the upstreams on a cassette of ``umbel record`` answer.
- ``UpstreamRequest``: a request that an upstream received. ``RequestTrace``, ``CallTrace``, ``AttemptTrace``.
- ``LeakError``, ``UnscriptedRequestError``: a test ends with one of them; ``CassetteError``: a cassette cannot be used.

The fixture ``umbel_gateway`` is there in pytest wherever Umbel is installed with its extra ``umbel[testing]``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import UnscriptedRequestError
    from .cassettes.exchange import CassetteError
    from .cassettes.replay import cassette
    from .client import GatewayClient
    from .leaks import LeakError
    from .memory_gateway import gateway
    from .received import UpstreamRequest
    from .script import Script, content, delay, fail, hang, json, sse, stream, text
    from .trace import AttemptTrace, CallTrace, RequestTrace

__all__ = [
    "AttemptTrace",
    "CallTrace",
    "CassetteError",
    "GatewayClient",
    "LeakError",
    "RequestTrace",
    "Script",
    "UnscriptedRequestError",
    "UpstreamRequest",
    "cassette",
    "content",
    "delay",
    "fail",
    "gateway",
    "hang",
    "json",
    "sse",
    "stream",
    "text",
]

_HOMES = {
    "AttemptTrace": ".trace",
    "CallTrace": ".trace",
    "CassetteError": ".cassettes.exchange",
    "GatewayClient": ".client",
    "LeakError": ".leaks",
    "RequestTrace": ".trace",
    "Script": ".script",
    "UnscriptedRequestError": ".answers",
    "UpstreamRequest": ".received",
    "cassette": ".cassettes.replay",
    "content": ".script",
    "delay": ".script",
    "fail": ".script",
    "gateway": ".memory_gateway",
    "hang": ".script",
    "json": ".script",
    "sse": ".script",
    "stream": ".script",
    "text": ".script",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): pytest imports this package for every test session."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value
