"""Peers that may make no requests, under a server that is not Umbel's own: the gateway itself refuses them."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.server.asgi import ask, http_scope, living
from tests.unit.gateway.gateways import Function, gateway, route, says

REFUSED = "The address of this client may make no requests here."


@pytest.mark.parametrize(
    ("server", "client", "admitted"),
    [
        ({"allow_networks": ["10.0.0.0/8"]}, ("10.1.2.3", 1), True),
        ({"allow_networks": ["10.0.0.0/8"]}, ("::ffff:10.1.2.3", 1), True),
        ({"allow_networks": ["10.0.0.0/8"]}, ("192.0.2.1", 1), False),
        ({"allow_networks": ["10.0.0.0/8"]}, None, False),
        ({"allow_networks": ["unix"]}, None, True),
        ({"deny_networks": ["192.0.2.0/24"]}, ("192.0.2.1", 1), False),
        ({"deny_networks": ["192.0.2.0/24"]}, ("192.0.3.1", 1), True),
        ({"deny_networks": ["192.0.2.1"], "trusted_proxies": ["192.0.2.1"]}, ("192.0.2.1", 1), False),
    ],
)
async def test_the_peer_of_the_scope_decides_whatever_it_claims(
    server: dict[str, Any], client: tuple[str, int] | None, admitted: bool, way: str, autojump_clock: MockClock
) -> None:
    upstream = Function(says(1))
    app, records = gateway(route(), server=server, up=upstream)

    @app.compose("/code", deadline=None)
    async def code(compose: Any) -> int:
        return 1

    claims = [("x-forwarded-for", "10.0.0.1")]
    async with living(app):
        for target in ("/r", "/code"):
            answer = await ask(app, "GET", target, client=client, headers=claims)
            assert answer.status == (200 if admitted else 403)
            assert admitted or answer.json["detail"] == REFUSED
        for target in ("/livez", "/readyz?x"):
            assert (await ask(app, "GET", target, client=client, headers=claims)).status == 200
        assert (await ask(app, "POST", "/livez", client=client)).status == (405 if admitted else 403)
    assert len(upstream.asked) == admitted
    assert [record.detail for record in records.requests][:2] == ["" if admitted else REFUSED] * 2


async def test_a_websocket_of_a_peer_that_is_not_admitted_is_closed(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), server={"allow_networks": ["10.0.0.0/8"], "trusted_proxies": ["unix"]}, up=says(1))

    @app.websocket("/ws")
    async def ws() -> None:
        raise AssertionError("the handshake of a refused peer reached its view")

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    scope = http_scope("GET", "/ws", client=None, headers=[("x-forwarded-for", "10.0.0.1")])
    async with living(app):
        await app({**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
