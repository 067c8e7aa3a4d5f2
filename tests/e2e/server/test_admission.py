"""``allow_networks``, ``deny_networks`` and ``OPTIONS *`` under both servers, over HTTP/1.1, HTTP/2 and WebSocket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.logs.records import Records
from tests.support.server.http_channels import PROTOCOLS, Channel, opened
from tests.support.server.serving import connected, fetch, serving
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel

REFUSED = "The address of this client may make no requests here."
HANDSHAKE = [
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def application(**server: Any) -> tuple[Umbel, Records]:
    records = Records()
    config = Config.model_validate({"server": server})
    app = Umbel(__name__, config, recorder=records, static_folder=None)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.compose("/composed", deadline=None)
    async def composed(compose: Any) -> str:
        return "composed"

    @app.websocket("/ws")
    async def ws() -> None:
        raise AssertionError("the handshake of a refused peer reached its view")

    return app, records


async def ask(channel: Channel, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
    await channel.request(method, target)
    status, fields = await channel.answer()
    content = b""
    while method != "HEAD" and status != 204 and (part := await channel.part()):
        content += part
    return status, fields, content


@pytest.mark.parametrize("stock", [False, True], ids=["umbel", "stock"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_peer_that_is_not_admitted_gets_403_except_for_own_probes(protocol: str, stock: bool) -> None:
    app, records = application(deny_networks=["127.0.0.0/8"])
    async with serving(app, stock=stock) as port:
        for target in ("/hello", "/composed", "/none", "/livez/x", "/livez%2f"):
            async with opened(protocol, port) as channel:
                status, fields, content = await ask(channel, "GET", target)
            assert (status, fields["content-type"]) == (403, "application/problem+json"), target
            assert json.loads(content)["detail"] == REFUSED
        for method, target in (("GET", "/livez"), ("HEAD", "/readyz?x=1")):
            async with opened(protocol, port) as channel:
                assert (await ask(channel, method, target))[0] == 200
    said = [(record.status, record.detail) for record in records.requests if record.status == 403]
    assert said == [(403, REFUSED)] * 5


@pytest.mark.parametrize("stock", [False, True], ids=["umbel", "stock"])
async def test_a_websocket_of_a_peer_that_is_not_admitted_is_refused(stock: bool) -> None:
    app, records = application(allow_networks=["10.0.0.0/8", "unix"])
    async with serving(app, stock=stock) as port:
        assert (await fetch(port, "GET", "/ws", HANDSHAKE)).status == 403
        if not stock:
            assert (await fetch(port, "GET", "/livez", HANDSHAKE)).status == 403
    assert records.requests[0].status == 403


@pytest.mark.parametrize("stock", [False, True], ids=["umbel", "stock"])
async def test_a_websocket_cannot_claim_an_allowed_address_through_a_trusted_proxy(stock: bool) -> None:
    app, _ = application(allow_networks=["10.0.0.0/8"], trusted_proxies=["127.0.0.1"])
    async with serving(app, stock=stock) as port:
        assert (await fetch(port, "GET", "/ws", [*HANDSHAKE, ("x-forwarded-for", "10.0.0.1")])).status == 403


async def test_claims_of_the_client_do_not_change_the_peer() -> None:
    app, _ = application(allow_networks=["10.0.0.0/8"], trusted_proxies=["127.0.0.1"])
    async with serving(app) as port:
        for name in ("x-forwarded-for", "x-real-ip", "forwarded"):
            value = "for=10.0.0.1" if name == "forwarded" else "10.0.0.1"
            assert (await fetch(port, "GET", "/hello", [(name, value)])).status == 403
    app, _ = application(deny_networks=["10.0.0.0/8"], trusted_proxies=["127.0.0.1"])
    async with serving(app) as port:
        assert (await fetch(port, "GET", "/hello", [("x-forwarded-for", "10.0.0.1")])).status == 200


async def test_the_connection_of_a_refused_peer_is_closed() -> None:
    app, _ = application(deny_networks=["127.0.0.1"])
    async with serving(app) as port, connected(port) as client:
        reply = await client.request("GET", "/hello")
        assert (reply.status, reply["connection"]) == (403, "close")
        assert await client.closed_by_server()


@pytest.mark.parametrize("stock", [False, True], ids=["umbel", "stock"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_options_of_the_whole_server_gets_204_without_content(protocol: str, stock: bool) -> None:
    app, records = application()
    async with serving(app, stock=stock) as port:
        async with opened(protocol, port) as channel:
            assert (await ask(channel, "OPTIONS", "*"))[0] == 204
        async with opened(protocol, port) as channel:
            assert (await ask(channel, "OPTIONS", "*?a"))[0] == 400
        if not stock:
            async with opened(protocol, port) as channel:
                assert (await ask(channel, "GET", "*"))[0] == 400
    assert records.requests[0].status == 204
    assert (records.requests[0].request.method, records.requests[0].request.path) == ("OPTIONS", "*")
