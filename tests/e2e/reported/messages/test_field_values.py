"""Values that are invalid in a header field, over sockets: they are encoded, or their field is left out."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.gateway.configs import write
from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, serving
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import __version__
from umbel.composition.gather import Compose
from umbel.gateway.app import Umbel
from umbel.upstream import Transport

JSON = ("content-type", "application/json")
ODD = 'r\u00e9sum\u00e9 "1"; a\\b.pdf'
EXTENDED = "UTF-8''r%C3%A9sum%C3%A9%20%221%22%3B%20a%5Cb.pdf"


def fields_of(head: bytes) -> dict[bytes, bytes]:
    lines = head.split(b"\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines if line)}


class Upstream:
    """An upstream that answers with a JSON value and keeps the request heads."""

    def __init__(self, value: object = None, *fields: bytes) -> None:
        self.heads: list[bytes] = []
        self._answer = response(json.dumps(value).encode(), *fields)

    async def __call__(self, peer: Peer) -> None:
        while (head := (await peer.read_request())[0]) != b"":
            self.heads.append(head)
            await peer.send(self._answer)


ANSWER = r"""headers = {
  content-disposition = "attachment; filename={part.file}", location = "/files/{part.file}", x-user = "{part.user}",
  x-lines = "a {part.lines}", x-list = "{part.list}", x-long = "{part.long}", x-good = "good"
}""".replace("\n", "")
PART = {"file": ODD, "user": "Jos\u00e9 \u20ac", "lines": "1\r\nx-evil: 1", "list": [1], "long": "x" * 9000}


@SERVERS
@pytest.mark.parametrize("hooked", [False, True], ids=["direct", "through quart"])
async def test_an_invalid_value_of_an_upstream_does_not_fail_the_answer(
    stock: bool, hooked: bool, tmp_path: Path
) -> None:
    async with raw_server(Upstream(PART)) as upstream:
        app = Umbel.from_file(write(tmp_path, up(upstream) + route(answer=ANSWER)))
        if hooked:
            app.before_request(lambda: None)
        async with serving(app, stock=stock) as port, connected(port) as client:
            reply = await client.request("GET", "/r", [("connection", "close")])
    assert reply.status == 200
    assert reply.json == {"part": PART}
    fields = dict(reply.headers)
    assert fields["content-disposition"] == (f'attachment; filename="resume \\"1\\"; a\\\\b.pdf"; filename*={EXTENDED}')
    assert fields["location"] == "/files/r%C3%A9sum%C3%A9%20%221%22;%20a%5Cb.pdf"
    assert fields["x-user"].encode("latin-1").decode() == "Jos\u00e9 \u20ac"
    assert fields["x-good"] == "good"
    assert not {"x-evil", "x-lines", "x-list", "x-long"} & set(fields)


@pytest.mark.parametrize("raw", ["Jos\u00e9".encode(), b"Jos\xe9"], ids=["UTF-8", "ISO-8859-1"])
async def test_a_field_of_a_client_can_be_sent_in_fields_the_path_and_parameters(raw: bytes, tmp_path: Path) -> None:
    call = r"""headers = { x-name = "{headers.x_user}", x-known = "a=\"{headers.x_user}\"" }
forward_headers = ["x-user"]
with = { user = "headers.x_user" }
params = { p = "headers.x_user" }"""
    answer = 'headers = { x-name = "{headers.x_user}" }\nshape = "headers.x_user"'
    upstream_ = Upstream()
    async with raw_server(upstream_) as upstream:
        config = up(upstream) + route(target="/{user}", call=call, answer=answer)
        async with running(tmp_path, config) as program:
            reply, received = await program.ask("/r", headers=[("x-user", raw.decode("latin-1"))])
    assert (reply.status, reply.json) == (200, "Jos\u00e9")
    assert b"x-name: " + raw in received
    (head,) = upstream_.heads
    assert head.startswith(b"GET /Jos%C3%A9?p=Jos%C3%A9 HTTP/1.1\r\n")
    fields = fields_of(head)
    # A forwarded field keeps its bytes, and so does a value of the client in a template.
    assert fields[b"x-user"] == fields[b"x-name"] == raw
    assert fields[b"x-known"] == b'a="%b"' % raw


VALUES: dict[str, tuple[object, dict[bytes, bytes]]] = {
    "another script": ("\u6587", {b"x-a": "\u6587".encode(), b"cookie": "c=\u6587; d=1".encode()}),
    "a line end": ("1\r\nx-evil: 1", {}),
    "NUL": ("1\0", {}),
    "a list": ([1], {}),
    "an object": ({}, {}),
    "a semicolon": ("1; admin=1", {b"x-a": b"1; admin=1", b"x-q": b'a="1; admin=1"'}),
    "a quote": ('1", b="2', {b"x-a": b'1", b="2', b"x-q": b'a="1\\", b=\\"2"', b"cookie": b'c=1", b="2; d=1'}),
    "a lone surrogate": ("\ud800", {b"x-a": "\ufffd".encode(), b"cookie": "c=\ufffd; d=1".encode()}),
}


async def test_a_value_in_a_field_of_a_call_is_encoded_or_the_field_is_left_out(tmp_path: Path) -> None:
    call = r"""headers = { x-a = "{body.a}", x-q = "a=\"{body.a}\"", cookie = "c={body.a}; d=1", x-good = "good" }"""
    upstream_ = Upstream()
    got: dict[str, dict[bytes, bytes]] = {}
    async with raw_server(upstream_) as upstream, running(tmp_path, up(upstream) + route(call=call)) as program:
        for name, (value, _) in VALUES.items():
            reply, _ = await program.ask("/r", "POST", [JSON], json.dumps({"a": value}).encode())
            assert reply.status == 200
            fields = fields_of(upstream_.heads[-1])
            assert fields[b"x-good"] == b"good"
            assert b"x-evil" not in fields
            got[name] = {field: fields[field] for field in (b"x-a", b"x-q", b"cookie") if field in fields}
    expected = {name: dict(fields) for name, (_, fields) in VALUES.items()}
    for name in ("another script", "a lone surrogate"):
        expected[name][b"x-q"] = b'a="' + expected[name][b"x-a"] + b'"'
    assert got == expected
    assert {line["level"] for line in program.lines("access")} == {"info"}


async def test_a_stream_is_sent_without_a_field_of_an_invalid_value(tmp_path: Path) -> None:
    answer = 'headers = { x-a = "{body.a}", x-b = "{body.b}" }'
    streamed = route(keys="stream = true", answer=answer)
    async with raw_server(Upstream(1)) as upstream, running(tmp_path, up(upstream) + streamed) as program:
        reply, received = await program.ask("/r", "POST", [JSON], json.dumps({"a": [1], "b": "\u00e9"}).encode())
    assert reply.status == 200
    assert "x-b: \u00e9\r\n".encode() in received
    assert b"x-a:" not in received


@pytest.mark.parametrize("hooked", [False, True], ids=["direct", "through quart"])
async def test_a_forwarded_field_of_an_upstream_keeps_its_bytes(hooked: bool, tmp_path: Path) -> None:
    answer = 'forward_headers = { part = ["x-a", "x-b"] }'
    fields = ["X-A: Jos\u00e9".encode(), b"X-B: Jos\xe9"]
    async with raw_server(Upstream(1, *fields)) as upstream:
        app = Umbel.from_file(write(tmp_path, up(upstream) + route(answer=answer)))
        if hooked:
            app.before_request(lambda: None)
        async with serving(app) as port, connected(port) as client:
            await client.request("GET", "/r", [("connection", "close")])
    assert "x-a: Jos\u00e9\r\n".encode() in client.received
    assert b"x-b: Jos\xe9\r\n" in client.received


AGENTS: dict[str, tuple[str, str, bytes | None]] = {
    "the default": ("", "", f"umbel/{__version__}".encode()),
    "a text": ('user_agent = "shop/1 (+https://shop.test)"', "", b"shop/1 (+https://shop.test)"),
    "off": ('user_agent = "off"', "", None),
    "the client's": ('user_agent = "shop/1"', 'forward_headers = ["user-agent"]', b"client/1"),
    "a header of the upstream": ('user_agent = "shop/1"\nheaders = { User-Agent = "up/1" }', "", b"up/1"),
    "a header of the call": ("", 'headers = { user-agent = "call/1" }', b"call/1"),
}


@pytest.mark.parametrize(("keys", "call", "expected"), AGENTS.values(), ids=AGENTS)
async def test_an_upstream_gets_the_configured_user_agent(
    keys: str, call: str, expected: bytes | None, tmp_path: Path
) -> None:
    upstream_ = Upstream()
    async with raw_server(upstream_) as upstream, running(tmp_path, up(upstream, keys) + route(call=call)) as program:
        await program.ask("/r", headers=[("user-agent", "client/1")])
    (head,) = upstream_.heads
    assert fields_of(head).get(b"user-agent") == expected


@pytest.mark.parametrize("keys", ["", 'user_agent = "shop/1"', 'user_agent = "off"'])
async def test_calls_in_code_and_health_checks_have_the_user_agent_of_the_upstream(keys: str, tmp_path: Path) -> None:
    upstream_, expected = Upstream(), {"": f"umbel/{__version__}", 'user_agent = "shop/1"': "shop/1"}.get(keys)
    checked = f'{keys}\nhealth = {{ path = "/health", every = "1ms" }}'
    async with raw_server(upstream_) as upstream:
        app = Umbel.from_file(write(tmp_path, up(upstream, checked) + route()))

        @app.compose("/code")
        async def code(compose: Compose) -> object:
            async with compose.gather() as gather:
                call = gather.get("up", "/code")
            return call.value

        async with serving(app) as port, connected(port) as client:
            assert (await client.request("GET", "/code")).status == 200
            with trio.fail_after(5):
                while not any(head.startswith(b"GET /health ") for head in upstream_.heads):
                    await trio.testing.wait_all_tasks_blocked(0.001)
    for head in upstream_.heads:
        assert fields_of(head).get(b"user-agent") == (None if expected is None else expected.encode())
    assert {head.split(b" ")[1] for head in upstream_.heads} == {b"/code", b"/health"}


async def test_an_httpx_client_over_a_transport_keeps_its_own_user_agent() -> None:
    upstream_ = Upstream()
    async with raw_server(upstream_) as upstream, httpx.AsyncClient(transport=Transport([url(upstream)])) as client:
        await client.get(url(upstream))
        await client.get(url(upstream), headers={"user-agent": "own/1"})
    agents = [fields_of(head)[b"user-agent"] for head in upstream_.heads]
    assert agents == [f"python-httpx/{httpx.__version__}".encode(), b"own/1"]


async def test_a_value_keeps_its_bytes_over_http2_in_both_directions(tmp_path: Path) -> None:
    upstream_ = Upstream(PART)
    async with raw_server(upstream_) as upstream:
        call = 'forward_headers = ["x-user"]\nheaders = { x-name = "{headers.x_user}" }'
        app = Umbel.from_file(write(tmp_path, up(upstream) + route(call=call, answer=ANSWER)))
        async with serving(app) as port, h2_client(port) as client:
            answer = await client.fetch(path="/r", headers=[("x-user", "Jos\u00e9".encode())])
    assert answer.status == 200
    assert answer["x-user"].encode("latin-1").decode() == "Jos\u00e9 \u20ac"
    assert answer["content-disposition"].endswith(f"; filename*={EXTENDED}")
    fields = fields_of(upstream_.heads[0])
    assert fields[b"x-user"] == fields[b"x-name"] == "Jos\u00e9".encode()
