"""Runtime: foreign transports in place of upstream clients."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.logs.records import Records
from tests.support.server.asgi import ask, living
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.upstream import Transport

from .gateways import Function, route


def application(url: str, transport: httpx.AsyncBaseTransport) -> Umbel:
    routes = [route(calls={"part": {"upstream": "up", "path": "/part", "params": {"q": "`1`"}}})]
    config = Config.model_validate({"upstreams": {"up": {"urls": [url]}}, "routes": routes})
    app = Umbel(__name__, config, transports={"up": transport}, recorder=Records())

    @app.compose("/in-code")
    async def in_code(compose: Any) -> Any:
        async with compose.gather() as g:
            part = g.get("up", "/part", params={"q": 1})
        return part.value

    return app


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://up:8080", "http://up:8080/part?q=1"),
        ("https://up/base/", "https://up/base/part?q=1"),
        ("dns+http://up:8080", "http://up:8080/part?q=1"),
        ("unix:/run/up.sock", "http://localhost/part?q=1"),
    ],
)
@pytest.mark.parametrize("target", ["/r", "/in-code"])
async def test_a_foreign_transport_gets_the_upstreams_url_and_the_calls_target(
    url: str, seen: str, target: str
) -> None:
    upstream = Function(lambda request: httpx.Response(200, json=1))
    app = application(url, upstream)
    async with living(app):
        assert (await ask(app, target=target)).status == 200
    (request,) = upstream.asked
    assert str(request.url) == seen
    assert upstream.target == b"/part?q=1"


async def test_a_transport_that_is_a_caller_is_used_unchanged() -> None:
    transport = Transport(["http://127.0.0.1:1"])
    app = application("http://up", transport)
    async with transport, living(app):
        assert app.runtime.callers["up"] is transport
