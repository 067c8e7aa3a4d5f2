"""docs/auth.md: each recipe is served, and each request that is shown gets the response that is shown.

The providers of the recipes are real ones on loopback. Each token comes from a sign-in over HTTP.
"""

from __future__ import annotations

import datetime
import json
import re
import runpy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from tests.support.auth.provider import Provider, provided, signed_in
from tests.support.gateway.shown_exchanges import Exchange, ask, check_reply, exchanges, sections_of, split_message
from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel
from umbel.cli.auth import auth

SECTIONS = sections_of((PROJECT / "docs" / "auth.md").read_text())
RECIPES = {name: text for name, text in SECTIONS.items() if "*Recipe.*" in text}
TLS = "Service to service with certificates"
CLOSED = "A gateway that is closed by default"
PARTNERS = "Partners with keys"
UPSTREAM = "http://127.0.0.1:9001"
"""The address of the upstream in the recipes."""
ID, BOOKS = "https://id.example", "https://login.books.example"
"""The providers of the recipes."""
_PRIVATE = ("authorization", "cookie", "x-api-key", "x-forwarded-client-cert", "x-auth-request-email")
_GATEWAYS = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-envoy-expected-rq-timeout-ms",
)
_HANDSHAKE_KEY = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The Sec-WebSocket-Accept of the example of RFC 6455."""


class Providers(NamedTuple):
    """The providers of the recipes, and what stands for tokens there."""

    id: Provider
    books: Provider

    async def tokens(self) -> dict[str, str]:
        """The tokens of the recipes by name."""
        return {
            "$ADA_WITHOUT_SCOPE": (await signed_in(self.id, "ada"))["access_token"],
            "$ADA": (await signed_in(self.id, "ada", "orders:read"))["access_token"],
            "$GRACE": (await signed_in(self.id, "grace", "orders:read"))["access_token"],
            "$BELA": (await signed_in(self.books, "bela"))["access_token"],
            "$MALLORY": (await signed_in(self.books, "mallory"))["access_token"],
        }


@asynccontextmanager
async def providers() -> AsyncIterator[Providers]:
    own = Provider(
        users={
            "ada": {"tenant": "fashion", "email": "ada@shop.example"},
            "grace": {"tenant": "fashion", "groups": ["support"]},
        }
    )
    others = Provider(users={"bela": {"tenant": "books"}, "mallory": {"tenant": "fashion"}})
    async with provided(own), provided(others):
        yield Providers(own, others)


def _seen(head: bytes) -> str:
    """What the upstream has received, as JSON: the target, and the fields about the client."""
    line, fields, _ = split_message(head.decode("latin-1").replace("\r\n", "\n"))
    kept = {
        name: value for name, value in fields if name in _PRIVATE or (name.startswith("x-") and name not in _GATEWAYS)
    }
    return json.dumps({"target": line.split(" ")[1], **kept})


async def upstream(peer: Peer) -> None:
    """Answer each request with what was received; a WebSocket handshake with 101 and that in the field X-Seen."""
    while head := (await peer.read_request())[0]:
        seen = _seen(head)
        if b"upgrade: websocket" in head.lower():
            accept = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {_HANDSHAKE_KEY}\r\n"
            await peer.send(f"HTTP/1.1 101 Switching Protocols\r\n{accept}X-Seen: {seen}\r\n\r\n".encode())
            await peer.closed()
            return
        await peer.send(response(seen.encode(), b"Content-Type: application/json"))


def _config(section: str) -> str:
    """The umbel.toml of a recipe."""
    (config,) = (text for text in re.findall(r"```toml\n(.*?)```", section, re.DOTALL) if "[upstreams." in text)
    return config


def _made_keys(section: str, folder: Path) -> dict[str, str]:
    """Run the commands of a recipe that make API keys, and write its keys.toml; return the keys by their names."""
    next_year = str(datetime.date.today().year + 1)
    made, tables = {}, ""
    for command in re.findall(r"^\$ umbel auth (.*)$", section, re.MULTILINE):
        arguments = re.sub(r"\b20\d\d-", f"{next_year}-", command).split(" ")
        result = CliRunner().invoke(auth, arguments)
        assert result.exit_code == 0
        made[f"${arguments[1].upper()}"] = result.stdout.strip()
        tables += result.stderr
    (folder / "keys.toml").write_text(tables)
    return made


@asynccontextmanager
async def recipe(name: str, folder: Path, **settings: Any) -> AsyncIterator[tuple[int, dict[str, str], Providers]]:
    """Serve a recipe within the block; yield its port, its credentials by what stands for them, and the providers."""
    section = RECIPES[name]
    async with raw_server(upstream) as server, providers() as found:
        config = _config(section).replace(UPSTREAM, f"http://127.0.0.1:{int(server)}")
        tokens = {**await found.tokens(), **_made_keys(section, folder)}
        for url, provider in ((ID, found.id), (BOOKS, found.books)):
            config = config.replace(url, provider.issuer)
        (folder / "umbel.toml").write_text(config)
        (folder / "issuer.json").write_text(found.id.key_set())
        for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            (folder / "app.py").write_text(code)
        made = (folder / "app.py").exists()
        app = runpy.run_path(str(folder / "app.py"))["app"] if made else Umbel.from_file(folder / "umbel.toml")
        async with serving(app, **settings) as port:
            yield port, tokens, found


def _with(exchange: Exchange, credentials: Mapping[str, str]) -> Exchange:
    """An exchange with credentials in place of what stands for them."""

    def put(text: str) -> str:
        for name in sorted(credentials, key=len, reverse=True):
            text = text.replace(name, credentials[name])
        return text

    fields = [(name, put(value)) for name, value in exchange.fields]
    return exchange._replace(target=put(exchange.target), fields=fields)


@pytest.mark.parametrize("name", sorted({*RECIPES} - {TLS}))
async def test_each_request_of_a_recipe_gets_the_response_that_is_shown(name: str, tmp_path: Path) -> None:
    asked = exchanges(RECIPES[name])
    assert asked
    async with recipe(name, tmp_path) as (port, credentials, _):
        for exchange in asked:
            reply = await ask(port, _with(exchange, credentials))
            check_reply(exchange, reply)
            assert not any(secret in str(reply) for secret in credentials.values())


def test_every_exchange_of_the_page_belongs_to_a_recipe() -> None:
    assert len(RECIPES) >= 10
    assert [name for name, text in SECTIONS.items() if name not in RECIPES and "```http" in text] == []
