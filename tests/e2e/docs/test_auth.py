"""docs/auth.md: each recipe is served, and each request that is shown gets the response that is shown.

The providers of the recipes are real ones on loopback. Each token comes from a sign-in over HTTP.
"""

from __future__ import annotations

import datetime
import json
import re
import runpy
import ssl
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trustme
from click.testing import CliRunner

from tests.support.auth.certificates import Authority, client_context
from tests.support.auth.oidc_provider import SPA as CLIENT
from tests.support.auth.oidc_provider import Provider, ask_for_token, provided, signed_in
from tests.support.gateway.shown_exchanges import Exchange, ask, check_reply, exchanges, sections_of, split_message
from tests.support.process.processes import PROJECT
from tests.support.server.serving import RawClient, Reply, fetch, serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel
from umbel.auth.keys.api_keys import ApiKeyAuthenticator
from umbel.cli.auth import auth
from umbel.cli.options import load_with_warnings

SECTIONS = sections_of((PROJECT / "docs" / "auth.md").read_text())
RECIPES = {name: text for name, text in SECTIONS.items() if "*Recipe.*" in text}
TLS = "Service to service with certificates"
SPA = "A single-page application with a provider"
PARTNERS = "Partners with keys"
OWN_PROVIDERS = "Tenants with providers of their own"
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
            "$EVE": (await signed_in(self.id, "eve", "orders:read"))["access_token"],
            "$BELA": (await signed_in(self.books, "bela"))["access_token"],
            "$MALLORY": (await signed_in(self.books, "mallory"))["access_token"],
        }


@asynccontextmanager
async def providers() -> AsyncIterator[Providers]:
    own = Provider(
        users={
            "ada": {"tenant": "fashion", "email": "ada@shop.example"},
            "grace": {"tenant": "fashion", "groups": ["support"]},
            "eve": {"groups": "nosupport"},
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
    """Run the commands of a recipe that make API keys and its keys.toml; return the keys by their names."""
    next_year = str(datetime.date.today().year + 1)
    made = {}
    for command in re.findall(r"^\$ umbel auth (.*)$", section, re.MULTILINE):
        arguments = re.sub(r"\b20\d\d-", f"{next_year}-", command).split(" ")
        result = CliRunner().invoke(auth, [str(folder / each) if each == "keys.toml" else each for each in arguments])
        assert (result.exit_code, result.stderr) == (0, "")
        made[f"${arguments[1].upper()}"] = result.stdout.strip()
    return made


class Served(NamedTuple):
    """A recipe that is served."""

    port: int
    credentials: dict[str, str]
    """The credentials by what stands for them in the recipe."""
    providers: Providers
    app: Umbel

    async def ask(self, target: str, **fields: str) -> Reply:
        named = [(name.replace("_", "-"), value) for name, value in fields.items()]
        return await fetch(self.port, "GET", target, named)


@asynccontextmanager
async def recipe(name: str, folder: Path, *, section: str = "", **settings: Any) -> AsyncIterator[Served]:
    """Serve a recipe, or a changed ``section`` of one, within the block."""
    section = section or RECIPES[name]
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
            yield Served(port, tokens, found, app)


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
    async with recipe(name, tmp_path) as served:
        for exchange in asked:
            reply = await ask(served.port, _with(exchange, served.credentials))
            check_reply(exchange, reply)
            assert not any(secret in str(reply) for secret in served.credentials.values())
        warnings = [str(line) for line in load_with_warnings(str(tmp_path / "umbel.toml")).warnings]
        assert not [line for line in warnings if ".allow: " in line or "sends the client" in line]


def test_every_exchange_of_the_page_belongs_to_a_recipe() -> None:
    assert len(RECIPES) >= 11
    assert [name for name, text in SECTIONS.items() if name not in RECIPES and "```http" in text] == []


async def _ask_over_tls(port: int, context: ssl.SSLContext, target: str) -> Reply:
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(tcp, context, server_hostname="gateway.internal", https_compatible=True) as stream:
        return await RawClient(stream).request("GET", target)  # type: ignore[arg-type]


async def test_services_are_known_by_their_certificates_as_the_recipe_shows(tmp_path: Path) -> None:
    ours, others, of_server = Authority(tmp_path, "services-ca"), Authority(tmp_path, "others"), trustme.CA()
    of_server.cert_pem.write_to_path(tmp_path / "server-ca.pem")
    server = of_server.issue_cert("gateway.internal")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    blocks = re.findall(r"```toml\n(.*?)```", RECIPES[TLS], re.DOTALL)
    (settings,) = (tomllib.loads(block) for block in blocks if "# hypercorn.toml" in block)
    files = {name: str(tmp_path / settings[name]) for name in ("certfile", "keyfile", "ca_certs")}

    async with recipe(TLS, tmp_path, **files, verify_mode=ssl.VerifyMode(settings["verify_mode"])) as served:

        async def reply(target: str, certificate: Path | None) -> Reply:
            return await _ask_over_tls(served.port, client_context(tmp_path / "server-ca.pem", certificate), target)

        job = ours.issue("spiffe://shop.example/jobs/nightly")
        for exchange in exchanges(RECIPES[TLS]):
            check_reply(exchange, await reply(exchange.target, job))
        assert (await reply("/invoices", ours.issue("spiffe://shop.example/billing"))).status == 200
        stranger = ours.issue("spiffe://shop.example/jobsearch")
        assert [(await reply(target, stranger)).status for target in ("/orders", "/status")] == [401, 200]
        assert [(await reply(target, None)).status for target in ("/orders", "/invoices", "/status")] == [401, 401, 200]
        foreign, expired = (
            each.issue("spiffe://shop.example/billing", expired=each is ours) for each in (others, ours)
        )
        for certificate in (foreign, expired):
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                await reply("/status", certificate)


async def test_no_certificate_of_a_field_counts_from_a_peer_that_is_no_trusted_proxy(tmp_path: Path) -> None:
    name = "Certificates behind a proxy"
    first = exchanges(RECIPES[name])[0]
    untrusted = RECIPES[name].replace('trusted_proxies = ["127.0.0.1"]', 'trusted_proxies = ["192.0.2.1"]')
    async with recipe(name, tmp_path, section=untrusted) as served:
        assert (await ask(served.port, first)).status == 401


async def test_only_a_request_for_a_closed_route_needs_a_credential(tmp_path: Path) -> None:
    async with recipe("A gateway that is closed by default", tmp_path) as served:
        for method, target, status in (
            ("OPTIONS", "/orders", 204),
            ("DELETE", "/orders", 405),
            ("GET", "/nothing", 404),
            ("GET", "/livez", 200),
            ("HEAD", "/orders", 401),
            ("OPTIONS", "/files/a", 401),
            ("DELETE", "/files/a", 401),
        ):
            assert (await fetch(served.port, method, target)).status == status, (method, target)


async def test_a_page_goes_on_with_a_refreshed_token_but_no_expired_or_foreign_one(tmp_path: Path) -> None:
    async with recipe(SPA, tmp_path) as served:
        provider = served.providers.id
        granted = await signed_in(provider, "ada", "orders:read")
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"], "client_id": CLIENT}
        refreshed = (await ask_for_token(provider, form))["access_token"]
        assert (await served.ask("/users/ada/orders", authorization=f"Bearer {refreshed}")).status == 200
        for claims, reason in (
            ({"exp": 1}, "The token has expired."),
            ({"aud": "bank"}, "The token is for another audience."),
            ({"sub": None}, "The token has not every claim that is required (sub)."),
        ):
            token = provider.token("ada", "orders:read", **claims)
            refused = await served.ask("/users/ada/orders", authorization=f"Bearer {token}")
            assert (refused.status, refused.json["detail"]) == (401, reason)
            challenge = f'Bearer realm="users", error="invalid_token", error_description="{reason}"'
            assert refused["www-authenticate"] == challenge


async def test_a_partner_changes_a_key_without_a_moment_in_which_none_is_good(tmp_path: Path) -> None:
    def new_key(*arguments: str) -> tuple[str, str]:
        result = CliRunner().invoke(auth, ["new-key", "acme", "--scope", "orders:read", *arguments])
        return result.stdout.strip(), result.stderr

    async with recipe(PARTNERS, tmp_path) as served:
        authenticator = served.app.gateway_context.require_runtime().authenticators["partners"]
        assert isinstance(authenticator, ApiKeyAuthenticator)

        def state() -> tuple[int, str | None]:
            statistics = authenticator.statistics()
            return statistics.generation, statistics.last_error

        async def replace(text: str) -> None:
            (tmp_path / "new.toml").write_text(text)
            (tmp_path / "new.toml").rename(tmp_path / "keys.toml")
            before = state()
            with trio.fail_after(5):
                while state() == before:
                    await authenticator.look()

        async def answer(key: str) -> tuple[int, Any]:
            reply = await served.ask("/orders", x_api_key=key)
            return reply.status, reply.json["orders"]["x-partner"] if reply.status == 200 else reply.json["detail"]

        old, before = served.credentials["$ACME"], (tmp_path / "keys.toml").read_text()
        new, table = new_key()
        await replace(before + table)
        assert [await answer(key) for key in (old, new)] == [(200, "acme"), (200, "acme")]
        last, expiring = new_key()
        await replace(table + expiring + "expires = 2026-01-31\n")
        assert [await answer(key) for key in (old, new, last)] == [
            (401, "The API key is not valid."),
            (200, "acme"),
            (401, "The API key has expired."),
        ]
        await replace("half a fi")
        assert (await answer(new))[0] == 200


async def test_a_provider_that_is_down_at_the_start_stops_only_its_own_tenant(tmp_path: Path) -> None:
    down = RECIPES[OWN_PROVIDERS].replace(f'urls = ["{BOOKS}"]', 'urls = ["http://127.0.0.1:1"]')
    async with recipe(OWN_PROVIDERS, tmp_path, section=down) as served:
        assert (await served.ask("/readyz")).status == 200
        for tenant, name, status in (("fashion", "$ADA", 200), ("books", "$BELA", 503)):
            token = served.credentials[name]
            reply = await served.ask(f"/{tenant}/orders", authorization=f"Bearer {token}")
            assert reply.status == status, tenant
