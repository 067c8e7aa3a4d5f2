"""The client's address, host and scheme are the same in routing, redirects, records and calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from quart import redirect, request, url_for
from quart.typing import ResponseReturnValue

from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.h2_client import h2_client
from tests.support.server.raw_client import converse
from tests.support.server.serving import Reply
from tests.support.upstream.raw_server import Peer, field_value, raw_server, response
from umbel.gateway.app import Umbel

HOOKS = ("", '[server]\nhooks = "all"\n')
TRUSTED = '[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n'
HTTPS = (("x-forwarded-proto", "https"), ("x-forwarded-host", "api.example.com"))


class Upstream:
    """An upstream that answers ``{}`` and keeps the request heads."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            self.heads.append(head)
            await peer.send(response(b"{}"))

    def received(self, name: str) -> str | None:
        """The value of a field of the last request; None if it had none."""
        return field_value(self.heads[-1], name)


@asynccontextmanager
async def asked(
    directory: Path,
    before: str,
    routes: str,
    *,
    stock: bool = False,
    prepare: Callable[[Umbel], object] | None = None,
) -> AsyncIterator[tuple[Program, Upstream]]:
    """Run the gateway with an upstream; its table stands between the two texts of the configuration."""
    upstream = Upstream()
    async with (
        raw_server(upstream.serve) as server,
        running(directory, before + up(server) + routes, stock=stock, prepare=prepare) as program,
    ):
        yield program, upstream


def locations(reply: Reply) -> list[str]:
    return [value for name, value in reply.headers if name == "location"]


async def ask_under(program: Program, host: str, target: str, method: str = "GET") -> int:
    """Send a request with this Host and return the status."""
    raw = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    (status,) = (await converse(program.port, raw.encode(), methods=[method])).statuses
    return status


# Hosts and probes.


@SERVERS
async def test_only_probes_are_answered_for_an_unknown_host(tmp_path: Path, stock: bool) -> None:
    text = '[server]\nhosts = ["shop.example"]\nprobes = ["/livez", "/healthz"]\n' + up(1) + route("/healthz")
    async with running(tmp_path, text, stock=stock) as program:
        for _ in range(2):  # The second request uses cached fields.
            for target in ("/livez", "/readyz", "/livez?verbose", "http://10.1.2.3:8000/readyz"):
                assert await ask_under(program, "10.1.2.3:8000", target) == 200
                assert await ask_under(program, "10.1.2.3:8000", target, "HEAD") == 200
            assert await ask_under(program, "10.1.2.3:8000", "/healthz") == 502
            for target, method in (("/", "GET"), ("/livez/x", "GET"), ("/livez", "POST"), ("/x?/livez", "GET")):
                assert await ask_under(program, "10.1.2.3:8000", target, method) == 421
        assert await ask_under(program, "shop.example", "/") == 404
        async with h2_client(program.port) as client:
            for path, status in (("/livez", 200), ("/readyz", 200), ("/", 421), ("/livez/x", 421)):
                assert (await client.fetch(path=path, **{":authority": "10.1.2.3"})).status == status
            assert (await client.fetch(path="/", **{":authority": "shop.example"})).status == 404


# Redirects and absolute URLs.


@SERVERS
@pytest.mark.parametrize("claims", [HTTPS, ()], ids=["told of the client", "not told"])
async def test_redirects_never_contain_the_gateways_own_address(
    tmp_path: Path, stock: bool, claims: tuple[tuple[str, str], ...]
) -> None:
    text = TRUSTED + up(1) + route("/dir/") + route("/a/b") + route("/i/<int:n>")
    moved = {"/dir": "/dir/", "/dir?x=1&y": "/dir/?x=1&y", "/a//b": "/a/b", "/i//5": "/i/5", "//a/b?q": "/a/b?q"}

    def prepare(app: Umbel) -> None:
        app.add_url_rule("/pages/", "pages", defaults={"page": 1})
        app.add_url_rule("/pages/<int:page>", "pages")

    async with running(tmp_path, text, stock=stock, prepare=prepare) as program:
        for target, place in moved.items():
            reply, _ = await program.ask(target, headers=claims)
            assert (reply.status, locations(reply)) == (308, [place])
            assert b"gateway" not in reply.body
        assert locations((await program.ask("/pages/1?q", headers=claims))[0]) == ["/pages/?q"]


@SERVERS
async def test_views_see_the_origin_of_the_client(tmp_path: Path, stock: bool) -> None:
    def prepare(app: Umbel) -> None:
        @app.get("/seen")
        async def seen() -> dict[str, Any]:
            return {
                "url": request.url,
                "external": url_for("seen", _external=True),
                "address": request.remote_addr,
                "secure": request.is_secure,
            }

        @app.get("/go")
        async def go() -> ResponseReturnValue:
            return redirect(url_for("seen", _external=True))

    async with running(tmp_path, TRUSTED + up(1) + route(), stock=stock, prepare=prepare) as program:
        claims = [*HTTPS, ("x-forwarded-for", "203.0.113.9:51234")]
        reply, _ = await program.ask("/seen?x", headers=claims)
        url = "https://api.example.com/seen"
        assert reply.json == {"url": f"{url}?x", "external": url, "address": "203.0.113.9", "secure": True}
        assert locations((await program.ask("/go", headers=claims))[0]) == [url]
        # An invalid X-Forwarded-Host is ignored.
        for host in ("a/../b@evil", "api.example.com:99999", "[1.2]"):
            reply, _ = await program.ask("/seen", headers=[("x-forwarded-host", host), ("x-forwarded-proto", "x")])
            assert reply.json["url"] == "http://gateway.test/seen"


async def test_forwarding_fields_of_an_untrusted_peer_are_ignored(tmp_path: Path) -> None:
    def prepare(app: Umbel) -> None:
        @app.get("/seen")
        async def seen() -> dict[str, Any]:
            return {"url": request.url, "address": request.remote_addr}

    async with running(tmp_path, up(1) + route("/dir/"), prepare=prepare) as program:
        reply, _ = await program.ask(
            "/seen", headers=[*HTTPS, ("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")]
        )
        assert reply.json == {"url": "http://gateway.test/seen", "address": "127.0.0.1"}
    (line,) = program.lines("access")
    assert (line["client.address"], line["url.scheme"]) == ("127.0.0.1", "http")


# The client's address, scheme and host.


class Claims(NamedTuple):
    """The forwarding fields of a trusted proxy, and the client that follows from them."""

    addresses: str = ""
    schemes: str = ""
    client: str = "127.0.0.1"
    scheme: str = "http"
    chain: str | None = None
    """The addresses before the proxy's in the X-Forwarded-For of the call; None: not checked."""


CLIENT = "203.0.113.9"
ORIGINS = {
    "an address with a port": Claims("203.0.113.9:51234", client=CLIENT, chain=CLIENT),
    "IPv6": Claims("2001:db8::1", client="2001:db8::1", chain="2001:db8::1"),
    "IPv6 with a port": Claims("[2001:db8::1]:443", client="2001:db8::1", chain="2001:db8::1"),
    "IPv6 in quotes": Claims('"[2001:DB8::1]:443"', client="2001:db8::1", chain="2001:db8::1"),
    "a hidden port": Claims("203.0.113.9:_x", client=CLIENT, chain=CLIENT),
    "a mapped address": Claims("[::ffff:203.0.113.9]:1", client=CLIENT, chain=CLIENT),
    "an unknown client": Claims("unknown", chain="unknown"),
    "a hidden client behind a proxy": Claims("_x, 10.0.0.5:9", client="10.0.0.5", chain="_x, 10.0.0.5"),
    "a chain that the client began": Claims("6.6.6.6, 203.0.113.9:1, 10.0.0.5", client=CLIENT),
    "two schemes": Claims("203.0.113.9:1", "https, http", CLIENT, "https"),
    "two schemes alone": Claims("", "https, http", scheme="https"),
    "a scheme for each hop": Claims("203.0.113.9, 10.0.0.5", "https, http", CLIENT, "https"),
    "a scheme that the client claims": Claims("6.6.6.6, 203.0.113.9", "https, http", CLIENT, "http"),
    "one scheme for many hops": Claims("203.0.113.9, 10.0.0.5", "HTTPS", CLIENT, "https"),
    "a scheme of a WebSocket": Claims("", "wss", scheme="https"),
    "no scheme": Claims("", "gopher"),
    "a scheme behind nothing": Claims("", ", https", scheme="https"),
    "a scheme behind nothing, of one hop": Claims("203.0.113.9", " , https", CLIENT, "https"),
}


@SERVERS
async def test_the_clients_address_and_scheme_are_right_in_records_and_upstream(tmp_path: Path, stock: bool) -> None:
    async with asked(tmp_path, TRUSTED, route(), stock=stock) as (program, upstream):
        for name, claims in ORIGINS.items():
            said = [("x-forwarded-for", claims.addresses), ("x-forwarded-proto", claims.schemes)]
            reply, _ = await program.ask("/r", headers=[field for field in said if field[1]])
            assert reply.status == 200, name
            assert upstream.received("x-forwarded-proto") == claims.scheme, name
            if claims.chain is not None:
                assert upstream.received("x-forwarded-for") == f"{claims.chain}, 127.0.0.1", name
    seen = [(line["client.address"], line["url.scheme"]) for line in program.lines("access")]
    assert seen == [(claims.client, claims.scheme) for claims in ORIGINS.values()]


HOSTS = [
    ([("x-forwarded-host", "api.example.com:8443")], "api.example.com:8443"),
    ([("x-forwarded-host", "[2001:db8::1]:8443")], "[2001:db8::1]:8443"),
    (
        [("x-forwarded-host", "shop.example, inner.example"), ("x-forwarded-for", "203.0.113.9, 10.0.0.5")],
        "shop.example",
    ),
    # A proxy that appends to a list: the elements before its own come from its client and are not trusted.
    ([("x-forwarded-host", "evil.example, shop.example"), ("x-forwarded-for", "203.0.113.9")], "shop.example"),
    ([("x-forwarded-host", "evil.example, shop.example")], "shop.example"),
    ([("x-forwarded-host", "not a host")], "gateway.test"),
    ([("x-forwarded-host", "")], "gateway.test"),
    ([("x-forwarded-host", "shop.example:65535")], "shop.example:65535"),
    ([("x-forwarded-host", "shop.example:65536")], "gateway.test"),
    ([("x-forwarded-host", "shop.example:0")], "shop.example:0"),
    ([("x-forwarded-host", "a_b.shop.example.")], "a_b.shop.example."),
    ([("x-forwarded-host", "[1.2]")], "gateway.test"),
    ([("x-forwarded-host", "[::ffff:192.0.2.1]:80")], "[::ffff:192.0.2.1]:80"),
    ([("x-forwarded-host", "[:::]:80")], "gateway.test"),
    ([("forwarded", 'host="shop.example:99999"')], "gateway.test"),
    ([("connection", "x-forwarded-host"), ("x-forwarded-host", "shop.example")], "shop.example"),
]


async def test_upstreams_get_the_host_that_the_client_requested(tmp_path: Path) -> None:
    async with asked(tmp_path, TRUSTED, route()) as (program, upstream):
        for claims, host in HOSTS:
            assert (await program.ask("/r", headers=claims))[0].status == 200
            assert upstream.received("x-forwarded-host") == host


FORWARDED = [
    ("for=203.0.113.9;proto=https;host=shop.example", "203.0.113.9", "https", "shop.example"),
    ('For="[2001:db8::1]:4711" ; PROTO=https', "2001:db8::1", "https", "gateway.test"),
    (
        "for=6.6.6.6;host=evil, for=203.0.113.9;proto=https;host=shop.example,for=10.0.0.5",
        "203.0.113.9",
        "https",
        "shop.example",
    ),
    ('for="203.0.113.9:1";host="a.example"', "203.0.113.9", "http", "a.example"),
    ('for=203.0.113.9;host="a\\.example";secret="a=b\\",c"', "203.0.113.9", "http", "a.example"),
    ('for=6.6.6.6;x="y=z, for=203.0.113.9;proto=https;host=shop.example', "203.0.113.9", "https", "shop.example"),
    ('x="y=z", for=203.0.113.9;proto=https', "203.0.113.9", "https", "gateway.test"),
    ("junk, for=203.0.113.9", "203.0.113.9", "http", "gateway.test"),
    ("for=203.0.113.9;host=a.example;HOST=b.example", "127.0.0.1", "http", "gateway.test"),
    ('for="203.0.113.9, 6.6.6.6"', "127.0.0.1", "http", "gateway.test"),
    ("for=unknown;proto=https", "127.0.0.1", "https", "gateway.test"),
    ('for="203.0.113.9', "127.0.0.1", "http", "gateway.test"),
    ("for=203.0.113.9 proto=https", "127.0.0.1", "http", "gateway.test"),
    (",,;", "127.0.0.1", "http", "gateway.test"),
]


async def test_the_field_forwarded_is_read_like_x_forwarded_fields(tmp_path: Path) -> None:
    async with asked(tmp_path, TRUSTED, route()) as (program, upstream):
        for value, _, scheme, host in FORWARDED:
            assert (await program.ask("/r", headers=[("forwarded", value)]))[0].status == 200
            assert (upstream.received("x-forwarded-proto"), upstream.received("x-forwarded-host")) == (scheme, host)
        # If both are present, X-Forwarded-* count.
        both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.9")]
        assert (await program.ask("/r", headers=both))[0].status == 200
    clients = [line["client.address"] for line in program.lines("access")]
    assert clients == [*(client for _, client, _, _ in FORWARDED), "203.0.113.9"]


@SERVERS
async def test_records_of_refused_requests_have_the_clients_address(tmp_path: Path, stock: bool) -> None:
    text = (
        TRUSTED
        + 'max_body = "10B"\nhosts = ["gateway.test"]\n'
        + up(1)
        + route(call="forward_body = true", keys='body = "bytes"')
    )
    claims = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")]
    async with running(tmp_path, text, stock=stock) as program:
        assert (await program.ask("/r", "POST", claims, b"x" * 11))[0].status == 413
        assert (await program.ask("/a/../b", headers=claims))[0].status == 400
        lines = "".join(f"{name}: {value}\r\n" for name, value in claims)
        raw = f"GET / HTTP/1.1\r\nhost: other.test\r\n{lines}connection: close\r\n\r\n".encode()
        assert (await converse(program.port, raw)).statuses == [421]
        async with h2_client(program.port) as client:
            assert (await client.fetch(headers=claims, **{":authority": "other.test"})).status == 421
    seen = [
        (line["http.response.status_code"], line["client.address"], line["url.scheme"])
        for line in program.lines("access")
    ]
    assert seen == [(status, "203.0.113.9", "https") for status in (413, 400, 421, 421)]


# Paths that begin with more than one slash.

STATUSES = {
    "/./c": 400,
    "/%2e/c": 400,
    "/%2F/c": 400,
    "/\\c": 400,
    "/%5cc": 400,
    "/c;x=1": 404,
    "/c//": 404,
    "/;/c": 404,
}
TWO_SLASHES = ("//c", "///c", "//c?q=1", "//gateway.test/c", "http://gateway.test//c", "//c/", "//livez", "//")


@SERVERS
@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "through quart"])
async def test_a_path_that_begins_with_two_slashes_is_redirected_to_one_slash(
    tmp_path: Path, stock: bool, through_quart: bool
) -> None:
    routes = route("/c") + route("/f/<path:rest>")
    async with asked(tmp_path, HOOKS[through_quart], routes, stock=stock) as (program, upstream):
        for target in TWO_SLASHES:
            reply, _ = await program.ask(target)
            (place,) = locations(reply)
            assert (reply.status, reply.body) == (308, b"")
            assert place.startswith("/") and not place.startswith("//")
        assert locations((await program.ask("//c?q=1", "POST", body=b"{}"))[0]) == ["/c?q=1"]
        async with h2_client(program.port) as client:
            answer = await client.fetch(path="//c")
            assert (answer.status, answer["location"]) == (308, "/c")
        for target, status in STATUSES.items():
            assert (await program.ask(target))[0].status == status, target
        assert upstream.heads == []
        assert (await program.ask("/c"))[0].status == 200
        assert program.app.statistics().routes_before_quart is not through_quart


async def test_a_websocket_at_a_path_with_two_slashes_is_refused(tmp_path: Path) -> None:
    def prepare(app: Umbel) -> None:
        @app.websocket("/ws")
        async def ws() -> None:
            raise AssertionError

    async with running(tmp_path, up(1) + route(), prepare=prepare) as program:
        key = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        raw = f"GET //ws HTTP/1.1\r\nhost: gateway.test\r\nconnection: upgrade\r\n{key}\r\n"
        assert (await converse(program.port, raw.encode())).statuses == [400]


# The field X-KrakenD-Completed.


@SERVERS
@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "through quart"])
async def test_every_error_of_a_krakend_route_has_completed_false(
    tmp_path: Path, stock: bool, through_quart: bool
) -> None:
    compat = "krakend_compat = true"
    body = f'{compat}\nmax_body = "8B"\nmethods = ["POST"]'
    routes = route("/c", keys=f'{compat}\nquery = {{ n = {{ type = "int" }} }}')
    routes += route("/b", keys=body, call="forward_body = true") + route("/else") + route("/i/<int:n>", keys=compat)
    routes += route("/hidden", keys=f'{compat}\nexpose = "none"')
    json = [("content-type", "application/json")]

    def prepare(app: Umbel) -> None:
        @app.compose("/code", krakend_compat=True)
        async def code(compose: Any) -> None:
            raise LookupError

    async with asked(tmp_path, HOOKS[through_quart], routes, stock=stock, prepare=prepare) as (program, _):
        expected = [
            ("GET", "/c", [], b"", 200, ["true"]),
            ("POST", "/c", [], b"", 405, ["false"]),
            ("GET", "/c?n=x", [], b"", 400, ["false"]),
            ("POST", "/b", json, b'"0123456789"', 413, ["false"]),
            ("POST", "/b", [("content-type", "text/plain")], b"1", 415, ["false"]),
            ("POST", "/b", json, b"{", 400, ["false"]),
            ("GET", "/nowhere", [], b"", 404, ["false"]),
            ("GET", "/i/x", [], b"", 404, ["false"]),
            ("GET", "/a/../b", [], b"", 400, ["false"]),
            ("GET", "/code", [], b"", 500, ["false"]),
            ("POST", "/code", [], b"", 405, ["false"]),
            ("GET", "/else", [], b"", 200, []),
            ("POST", "/else", [], b"", 405, []),
            ("POST", "/hidden", [], b"", 405, []),
            ("POST", "/livez", [], b"", 405, []),
        ]
        for method, target, fields, content, status, said in expected:
            reply, _ = await program.ask(target, method, fields, content)
            assert (reply.status, reply.all("x-krakend-completed")) == (status, said), (method, target)


@SERVERS
async def test_refusals_of_the_server_have_completed_false_if_there_is_a_krakend_route(
    tmp_path: Path, stock: bool
) -> None:
    limits = '[server]\nmax_body = "10B"\nmax_target = "64B"\n'
    async with running(tmp_path, limits + up(1) + route("/c", keys="krakend_compat = true"), stock=stock) as program:
        for method, target, body, status in (("POST", "/c", b"x" * 11, 413), ("GET", "/" + "c" * 64, b"", 414)):
            reply, _ = await program.ask(target, method, body=body)
            assert (reply.status, reply.all("x-krakend-completed")) == (status, ["false"])
        async with h2_client(program.port) as client:
            answer = await client.fetch(path="/" + "c" * 64)
            assert (answer.status, answer["x-krakend-completed"]) == (414, "false")


async def test_without_krakend_routes_no_error_has_the_field_of_krakend(tmp_path: Path) -> None:
    async with running(tmp_path, up(1) + route()) as program:
        for method, target in (("POST", "/r"), ("GET", "/nowhere"), ("GET", "/r")):
            assert (await program.ask(target, method))[0].all("x-krakend-completed") == []
