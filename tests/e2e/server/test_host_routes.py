"""Routes by host over sockets: absolute targets, repeated and differing hosts, HTTP/2, under both servers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.server.http_channels import opened
from tests.support.server.serving import RawClient, Reply, connected, serving
from umbel.gateway.app import Umbel


def application() -> Umbel:
    app = Umbel(__name__, static_folder=None)

    def add(name: str, **options: Any) -> None:
        @app.compose("/r", endpoint=name, deadline=None, **options)
        async def composed(compose: Any) -> str:
            return name

    add("shop", host="shop.example")
    add("wild", host="*.shop.example")
    add("gateway", host="gateway.test")
    add("any")
    return app


async def send(client: RawClient, line: str, *hosts: str) -> Reply:
    fields = "".join(f"Host: {host}\r\n" for host in hosts)
    await client.stream.send_all(f"{line} HTTP/1.1\r\n{fields}\r\n".encode("latin-1"))
    return await client.reply()


@pytest.mark.parametrize("stock", [False, True], ids=["umbel", "stock"])
@pytest.mark.parametrize(
    ("line", "hosts", "said"),
    [
        ("GET /r", ["shop.example"], "shop"),
        ("GET /r", ["SHOP.example.:8000"], "shop"),
        ("GET /r", ["a.shop.example"], "wild"),
        ("GET /r", ["other.example"], "any"),
        ("GET http://shop.example/r", ["shop.example"], "shop"),
        ("GET http://SHOP.example:80/r", ["shop.example"], "shop"),
        ("GET http://shop.example/r", ["other.example"], 400),
        ("GET http://other.example/r", ["shop.example"], 400),
        ("GET http://a.shop.example@shop.example/r", ["shop.example"], 400),
        ("GET /r", ["shop.example", "other.example"], 400),
        ("GET /r", ["shop.example", "shop.example"], 400),
        ("GET /r", ["shop.example, other.example"], 400),
        ("GET /r", ["shop.example/x"], 400),
        ("GET /r", ["shop\xe9.example"], 400),
        ("GET /r", [], 400),
    ],
)
async def test_a_request_has_one_host_that_decides_its_route(
    line: str, hosts: list[str], said: str | int, stock: bool
) -> None:
    async with serving(application(), stock=stock) as port, connected(port) as client:
        reply = await send(client, line, *hosts)
        assert (reply.json if reply.status == 200 else reply.status) == said


async def test_the_authority_of_http2_is_the_host() -> None:
    async with serving(application()) as port, opened("HTTP/2", port) as channel:
        await channel.request("GET", "/r", [])
        status, _ = await channel.answer()
        assert (status, await channel.part()) == (200, b'"gateway"')
