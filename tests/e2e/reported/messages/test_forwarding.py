"""Forwarding: hop-by-hop fields are removed, a query is forwarded byte for byte, and the meaning of ``"*"``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import mistakes, write
from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.raw_client import converse
from tests.support.server.serving import connected, fetch
from tests.support.upstream.raw_server import Peer, field_value, raw_server, response
from umbel.cli import main


class Upstream:
    """An upstream that answers ``{}`` with the given fields, and keeps the requests."""

    def __init__(self, fields: bytes = b"") -> None:
        self.fields = fields
        self.heads: list[bytes] = []
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def serve(self, peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            self.heads.append(head)
            await self.may_answer.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\n" + self.fields + response(b"{}").partition(b"\r\n")[2])

    @property
    def target(self) -> bytes:
        return self.heads[-1].split(b" ")[1]

    @property
    def names(self) -> set[str]:
        """The names of the last request's fields."""
        lines = self.heads[-1].decode("latin-1").split("\r\n")[1:-2]
        return {line.partition(":")[0].lower() for line in lines}

    def received(self, name: str) -> str | None:
        """The value of a field of the last request; None if it had none."""
        return field_value(self.heads[-1], name)


@asynccontextmanager
async def asked(
    directory: Path, *routes: str, keys: str = "", before: str = "", fields: bytes = b"", stock: bool = False
) -> AsyncIterator[tuple[Program, Upstream]]:
    upstream = Upstream(fields)
    async with (
        raw_server(upstream.serve) as server,
        running(directory, before + up(server, keys) + "".join(routes), stock=stock) as program,
    ):
        yield program, upstream


async def send(program: Program, target: str, fields: Iterable[tuple[str, str]], method: str = "GET") -> None:
    """Send one request, with the Connection field in ``fields``; the status must be 200."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (("host", "gateway.test"), *fields))
    assert (await converse(program.port, f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode())).statuses == [200]


# Hop-by-hop fields.

FORWARDING = {
    "by name": 'forward_headers = ["x-once", "x-else"]\nforward_cookies = ["sid"]',
    "by a template": 'headers = { x-once = "{headers.x_once}", x-else = "{headers.x_else}" }',
    "by a star": 'forward_headers = ["*"]\nforward_cookies = ["*"]',
}


@SERVERS
@pytest.mark.parametrize("call", FORWARDING.values(), ids=FORWARDING.keys())
async def test_a_field_that_the_clients_connection_names_is_not_forwarded(
    tmp_path: Path, call: str, stock: bool
) -> None:
    fields = [("x-once", "1"), ("x-else", "2"), ("cookie", "sid=1"), ("te", "trailers"), ("keep-alive", "timeout=9")]
    async with asked(tmp_path, route(call=call), stock=stock) as (program, upstream):
        for connection in ("close, X-Once , cookie, te", "x-once,cookie,,close", "close\r\nconnection: x-ONCE, Cookie"):
            await send(program, "/r", [*fields, ("connection", connection)])
            assert upstream.received("x-else") == "2"
            assert upstream.names.isdisjoint({"x-once", "cookie", "te", "keep-alive", "connection"})
        await send(program, "/r", [*fields, ("connection", "close")])
        assert upstream.received("x-once") == "1"


async def test_connection_does_not_remove_fields_that_the_gateway_adds(tmp_path: Path) -> None:
    trusted = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    named = "x-forwarded-for, x-forwarded-proto, via, traceparent, host, content-length, x-request-id"
    fields = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("via", "1.1 before"),
        ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),
        ("connection", f"close, {named}"),
    ]
    async with asked(tmp_path, route(), before=trusted) as (program, upstream):
        await send(program, "/r", fields)
        assert upstream.received("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
        assert upstream.received("x-forwarded-proto") == "https"
        assert upstream.received("via") == "1.1 umbel"
        assert "a" * 32 not in str(upstream.received("traceparent"))


async def test_a_field_that_the_upstreams_connection_names_is_not_passed_on(tmp_path: Path) -> None:
    fields = b"connection: keep-alive, X-Once, set-cookie\r\nx-once: 1\r\nx-else: 2\r\nset-cookie: s=1\r\nX-Once: 3\r\n"
    answer = 'forward_headers = { part = ["x-once", "x-else"] }\nforward_cookies = { part = ["s"] }'
    async with asked(tmp_path, route(answer=answer), fields=fields) as (program, _):
        reply, _ = await program.ask("/r")
        assert (reply.all("x-else"), reply.all("x-once"), reply.all("set-cookie")) == (["2"], [], [])


@pytest.mark.parametrize("name", ["proxy-authenticate", "keep-alive", "connection", "upgrade"])
def test_hop_by_hop_fields_of_an_answer_are_a_mistake(tmp_path: Path, name: str) -> None:
    text = up(1) + route(answer=f'forward_headers = {{ part = ["{name}"] }}')
    (line,) = mistakes(tmp_path, text)
    assert name in line


@pytest.mark.parametrize("name", ["te", "connection", "proxy_authorization", "transfer_encoding"])
def test_an_expression_of_a_hop_by_hop_field_is_a_mistake(tmp_path: Path, name: str) -> None:
    (line,) = mistakes(tmp_path, up(1) + route(call=f'headers = {{ x-a = "{{headers.{name}}}" }}'))
    assert "belongs to one connection" in line


# The query.

QUERIES = [
    ("flag&q=a,b:c/d*", "flag&q=a,b:c/d*"),
    ("q=%41+b&skip=1&flag=&q", "q=%41+b&flag=&q"),
    ("%71=1&Q=2", "%71=1"),
    ("q=%zz%", "q=%zz%"),
    ("a+b=1&a%20b=2&ab=3", "a+b=1&a%20b=2"),
    ("q==&&flag", "q==&flag"),
    ('q=<"^`{|}\\>[]', 'q=<"^`{|}\\>[]'),
    ("", ""),
]


@SERVERS
async def test_chosen_parameters_arrive_byte_for_byte_in_the_order_of_the_query(tmp_path: Path, stock: bool) -> None:
    routes = route(call='forward_query = ["q", "flag", "a b"]') + route("/all", call='forward_query = ["*"]')
    async with asked(tmp_path, routes, stock=stock) as (program, upstream):
        for query, sent in QUERIES:
            assert (await program.ask(f"/r?{query}"))[0].status == 200
            assert upstream.target == (f"/x?{sent}" if sent else "/x").encode(), query
            assert (await program.ask(f"/all?{query}"))[0].status == 200
            assert upstream.target == (f"/x?{query}" if query else "/x").encode(), query


async def test_a_forwarded_query_follows_the_parameters_of_the_call(tmp_path: Path) -> None:
    routes = route(target="/x?a=1", call='params = { page = "`2`" }\nforward_query = ["*"]')
    async with asked(tmp_path, routes) as (program, upstream):
        assert (await program.ask("/r?page=3&&x"))[0].status == 200
        assert upstream.target == b"/x?a=1&page=2&page=3&&x"


# Stars.

CLIENTS = {
    "accept": "text/plain",
    "accept-language": "de",
    "user-agent": "tester/1",
    "x-any": "1",
    "origin": "https://app.example",
    "prefer": "return=minimal",
}
LEFT_OUT = {
    "authorization": "Bearer 1",
    "cookie": "sid=1",
    "proxy-authorization": "Basic eA==",
    "x-forwarded-client-cert": "Hash=1",
    "x-forwarded-user": "root",
    "forwarded": "for=1.1.1.1",
    "x-real-ip": "1.1.1.1",
    "content-language": "de",
    "content-md5": "x",
    "if-none-match": '"x"',
    "if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT",
    "range": "bytes=0-1",
    "proxy": "http://evil.example",
    "te": "trailers",
    "http2-settings": "AAMAAABkAAQAAP__",
    "tracestate": "a=1",
    "x-envoy-expected-rq-timeout-ms": "1",
}
TRUSTED = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'


@SERVERS
async def test_a_star_forwards_all_header_fields_except_a_fixed_list(tmp_path: Path, stock: bool) -> None:
    call = 'forward_headers = ["*"]'
    async with asked(tmp_path, route(call=call), before=TRUSTED, stock=stock) as (program, upstream):
        reply, _ = await program.ask("/r", headers=[*CLIENTS.items(), *LEFT_OUT.items()])
        assert reply.status == 200
        assert {name: upstream.received(name) for name in CLIENTS} == CLIENTS
        ours = {"host", "accept-encoding", "via", "x-request-id", "traceparent", "x-envoy-expected-rq-timeout-ms"}
        ours |= {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "tracestate"}
        assert upstream.names - CLIENTS.keys() <= ours
        assert (upstream.received("accept-encoding"), upstream.received("x-forwarded-for")) == (
            "gzip",
            "1.1.1.1, 127.0.0.1",
        )
        assert int(upstream.received("x-envoy-expected-rq-timeout-ms") or 0) > 1
        assert (reply["cache-control"], reply["vary"]) == ("private", "Accept")


async def test_a_star_does_not_forward_an_excluded_field_spelled_with_underscores(tmp_path: Path) -> None:
    server = '[server]\nunderscore_headers = "keep"\n'
    names = ("x_forwarded_for", "authorization_", "X_Real_IP", "content_length", "proxy_authorization", "x_any")
    async with asked(tmp_path, route(call='forward_headers = ["*"]'), before=server) as (program, upstream):
        assert (await program.ask("/r", headers=[(name, "1") for name in names]))[0].status == 200
        assert {name for name in upstream.names if "_" in name} == {"authorization_", "x_any"}


async def test_a_star_does_not_replace_a_configured_field(tmp_path: Path) -> None:
    keys = 'headers = { x-api-key = "ours", x-tenant = "a" }'
    call = 'forward_headers = ["*", "authorization"]\nheaders = { x-own = "own" }'
    async with asked(tmp_path, route(call=call), keys=keys) as (program, upstream):
        said = [("x-api-key", "theirs"), ("x-tenant", "b"), ("x-own", "c"), ("authorization", "Bearer 1")]
        assert (await program.ask("/r", headers=said))[0].status == 200
        names = ("x-api-key", "x-tenant", "x-own", "authorization")
        assert [upstream.received(name) for name in names] == ["ours", "a", "own", "Bearer 1"]


async def test_a_star_forwards_the_cookies_unchanged(tmp_path: Path) -> None:
    async with asked(tmp_path, route(call='forward_cookies = ["*"]')) as (program, upstream):
        cookies = 'a=1; b="x\\073y"; a=2;flag'
        reply, _ = await program.ask("/r", headers=[("cookie", cookies)])
        assert upstream.received("cookie") == cookies
        assert (reply["cache-control"], reply["vary"]) == ("private", "Accept, Cookie")
        assert (await program.ask("/r"))[0].status == 200
        assert upstream.received("cookie") is None


OWN_COOKIES = [
    ('forward_cookies = ["*"]', "", "a=1; sid=2; b", "own=1; sid=ours; a=1; b"),
    ('forward_cookies = ["*"]', "", None, "own=1; sid=ours"),
    ('forward_cookies = ["a", "sid"]', "", "a=1; sid=2; b=3", "own=1; sid=ours; a=1"),
    ('forward_cookies = ["a"]', 'headers = { cookie = "call={headers.x_a}" }', "a=1; call=2; sid=3", "call=me; a=1"),
]


@pytest.mark.parametrize(("call", "more", "sent", "wanted"), OWN_COOKIES)
async def test_configured_cookies_are_sent_together_with_forwarded_ones(
    tmp_path: Path, call: str, more: str, sent: str | None, wanted: str
) -> None:
    keys = 'headers = { cookie = "own=1; sid=ours" }'
    async with asked(tmp_path, route(call=f"{call}\n{more}"), keys=keys) as (program, upstream):
        said = [("x-a", "me"), *([("cookie", sent)] if sent is not None else [])]
        assert (await program.ask("/r", headers=said))[0].status == 200
        assert upstream.received("cookie") == wanted


async def test_an_answer_is_private_with_a_star_unless_the_route_says_otherwise(tmp_path: Path) -> None:
    said = b"cache-control: public, max-age=60\r\n"
    star = 'forward_headers = ["*"]'
    routes = route(call=star) + route("/own", call=star, answer='cache_control = "public, max-age=5"')
    routes += route("/query", call='forward_query = ["*"]')
    async with asked(tmp_path, routes, fields=said) as (program, _):
        assert (await program.ask("/r"))[0]["cache-control"] == "private, max-age=60"
        assert (await program.ask("/own"))[0]["cache-control"] == "public, max-age=5"
        assert (await program.ask("/query"))[0]["cache-control"] == "public, max-age=60"


async def test_calls_with_different_fields_forwarded_by_a_star_are_not_coalesced(tmp_path: Path) -> None:
    call = 'forward_headers = ["*"]\nforward_query = ["*"]\nforward_cookies = ["*"]\ncoalesce = true'
    headers = [[("x-a", "1")], [("x-a", "1")], [("x-a", "2")], [("x-a", "1"), ("cookie", "s=1")]]
    async with asked(tmp_path, route(call=call)) as (program, upstream):
        upstream.may_answer = trio.Event()
        async with trio.open_nursery() as nursery:
            for number, said in enumerate([*headers, headers[0]]):
                target = "/r?x" if number == len(headers) else "/r"
                nursery.start_soon(fetch, program.port, "GET", target, said)
            with trio.fail_after(5):
                while len(upstream.heads) < 4 or program.app.statistics().requests_in_flight < 5:
                    await wait_all_tasks_blocked(0.01)
            upstream.may_answer.set()
        assert len(upstream.heads) == 4


STARS = {
    'forward_headers = ["*", "x-a"]': '"*" in forward_headers sends "x-a" already',
    'forward_query = ["q", "*"]': '"*" in forward_query means all of them',
    'forward_cookies = ["*", "sid"]': '"*" in forward_cookies means all of them',
    'forward_headers = ["x-*"]': '"x-*" is a pattern, which is not allowed here; write each header',
    'forward_query = ["filter*"]': '"filter*" is a pattern, which is not allowed here; write each',
    'forward_cookies = ["s*"]': '"s*" is a pattern, which is not allowed here; write each cookie',
    'headers = { "*" = "x" }': '"*" is a pattern, which is not allowed',
}


@pytest.mark.parametrize("call", STARS)
def test_a_star_without_effect_is_a_mistake_of_the_call(tmp_path: Path, call: str) -> None:
    text = up(1) + route(call=call)
    (line,) = mistakes(tmp_path, text)
    assert STARS[call] in line
    assert line.startswith(f"umbel.toml:{text.splitlines().index(call) + 1}: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            up(1) + route(answer='forward_headers = { part = ["*"] }'),
            '"*" is a pattern, which is not allowed',
        ),
        (
            up(1) + route(answer='forward_cookies = { part = ["*"] }'),
            '"*" is a pattern, which is not allowed',
        ),
        (
            up(1) + route(answer='headers = { "x-*" = "1" }'),
            '"x-*" is a pattern, which is not allowed',
        ),
        (
            up(1, 'headers = { "*" = "1" }') + route(),
            '"*" is a pattern, which is not allowed',
        ),
        (up(1, 'deadline_header = "*"') + route(), "is a pattern"),
        (up(1) + route(keys='query = ["*"]'), '"*" is no name of a parameter; write each'),
        (up(1) + route(keys='query = { "*" = {} }'), '"*" is no name of a parameter; write each'),
    ],
)
def test_a_star_elsewhere_is_a_mistake(tmp_path: Path, text: str, told: str) -> None:
    assert any(told in line for line in mistakes(tmp_path, text))


def test_explain_shows_the_meaning_of_a_star(tmp_path: Path) -> None:
    call = 'forward_headers = ["*"]\nforward_query = ["*"]\nforward_cookies = ["*"]'
    file = write(tmp_path, up(1) + route(call=call))
    shown = CliRunner().invoke(main, ["explain", "GET", "/r?x=1", "-c", str(file)])
    assert shown.exit_code == 0
    words = " ".join(shown.output.replace("│", " ").split())
    for phrase in ("forwards all header fields of the client but authorization", "query unchanged", "all cookies"):
        assert phrase in words
    assert "is ignored" not in words
    assert "private: no shared cache keeps it" in words


async def test_requests_of_one_connection_may_differ_in_fields_forwarded_by_a_star(tmp_path: Path) -> None:
    routes = route(call='forward_headers = ["*"]')
    async with asked(tmp_path, routes) as (program, upstream), connected(program.port) as client:
        for value in ("1", "2"):
            assert (await client.request("GET", "/r", [("x-a", value)])).status == 200
            assert upstream.received("x-a") == value
        assert (await client.request("GET", "/r")).status == 200
        assert upstream.received("x-a") is None
