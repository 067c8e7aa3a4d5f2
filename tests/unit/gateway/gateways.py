"""Small applications for tests: upstreams are functions, and the records are a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.support.logs.records import Records
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel

Upstream = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Function(httpx.AsyncBaseTransport):
    """Upstream that is a function, sync or async, and keeps its requests."""

    def __init__(self, answer: Upstream) -> None:
        self._answer = answer
        self.asked: list[httpx.Request] = []
        self.cut = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        try:
            answer = self._answer(request)
            return answer if isinstance(answer, httpx.Response) else await answer
        except BaseException:
            self.cut += 1
            raise

    @property
    def target(self) -> bytes:
        target: bytes = self.asked[-1].extensions["target"]
        return target


def gateway(
    *routes: dict[str, Any],
    server: dict[str, Any] | None = None,
    sections: dict[str, Any] | None = None,
    **upstreams: Upstream,
) -> tuple[Umbel, Records]:
    """Make an application of ``routes`` whose upstreams are functions. ``sections``: further tables."""
    records = Records()
    config = Config.model_validate(
        {
            "upstreams": {name: {"urls": ["http://127.0.0.1:1"]} for name in upstreams},
            "routes": list(routes),
            "server": server or {},
            **(sections or {}),
        }
    )
    transports = {
        name: answer if isinstance(answer, Function) else Function(answer) for name, answer in upstreams.items()
    }
    return Umbel(__name__, config, transports=transports, recorder=records), records


def route(path: str = "/r", **keys: Any) -> dict[str, Any]:
    """Make a route with one call to ``/`` of the upstream ``up``."""
    return {"path": path, "calls": {"part": {"upstream": "up", "path": "/"}}, **keys}


def says(value: Any, **options: Any) -> Upstream:
    """Make an upstream that answers every request with the same JSON."""
    return lambda request: httpx.Response(options.get("status", 200), json=value, headers=options.get("headers"))
