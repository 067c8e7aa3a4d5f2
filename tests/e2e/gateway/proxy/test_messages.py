"""Messages through a proxy route: they arrive as they were sent, in both directions, whatever their framing."""

from __future__ import annotations

import gzip

import pytest
import trio

from tests.support.gateway.program import SERVERS
from tests.support.gateway.proxies import proxied, proxy_app
from tests.support.server.raw_client import converse
from tests.support.server.serving import connected, fetch, serving
from tests.support.upstream.raw_server import Peer, answering, field_value, raw_server, response

pytestmark = pytest.mark.parametrize("hooks", ["auto", "all"])


class Recording:
    """A handler that keeps each request, and answers with ``answer``."""

    def __init__(self, answer: bytes = response(b"ok")) -> None:
        self.answer = answer
        self.requests: list[tuple[bytes, bytes]] = []

    async def __call__(self, peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            self.requests.append(request)
            await peer.send(self.answer)


@SERVERS
async def test_path_and_query_arrive_byte_for_byte(stock: bool, hooks: str) -> None:
    upstream = Recording()
    async with proxied(upstream, stock=stock, hooks=hooks) as it:
        reply = await fetch(it.port, "GET", "/a/b%20c//d;e/?x=1&y=%2F&x=2&z")

    assert (reply.status, reply.body) == (200, b"ok")
    assert upstream.requests[0][0].startswith(b"GET /a/b%20c//d;e/?x=1&y=%2F&x=2&z HTTP/1.1\r\n")


@SERVERS
async def test_fields_of_the_client_go_along_but_those_of_the_connection(stock: bool, hooks: str) -> None:
    upstream = Recording()
    sent = [
        ("authorization", "Bearer t"),
        ("cookie", "a=1; b=2"),
        ("accept-encoding", "br;q=0.5, gzip"),
        ("range", "bytes=0-9"),
        ("x-own", "1"),
        ("connection", "x-own"),
        ("proxy-authorization", "Basic eA=="),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-client-cert", "Hash=1"),
        ("user-agent", "test"),
    ]
    async with proxied(upstream, stock=stock, hooks=hooks) as it:
        await fetch(it.port, "GET", "/a", sent)

    head = upstream.requests[0][0]
    kept = {name: field_value(head, name) for name, _ in sent}
    assert kept == {
        "authorization": "Bearer t",
        "cookie": "a=1; b=2",
        "accept-encoding": "br;q=0.5, gzip",
        "range": "bytes=0-9",
        "x-own": None,
        "connection": None,
        "proxy-authorization": None,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-client-cert": None,
        "user-agent": "test",
    }
    assert field_value(head, "via") == "1.1 umbel"
    assert field_value(head, "x-forwarded-host") == "gateway.test"


@SERVERS
async def test_a_body_of_known_length_arrives_with_its_length(stock: bool, hooks: str) -> None:
    upstream = Recording()
    sent = [(method, size) for method in ("POST", "PUT", "DELETE", "PATCH") for size in (0, 5, 5_000, 300_000)]
    async with proxied(upstream, stock=stock, hooks=hooks) as it:
        for method, size in sent:
            assert (await fetch(it.port, method, "/a", body=BODY[:size])).status == 200

    for (method, size), (head, arrived) in zip(sent, upstream.requests, strict=True):
        assert (head.partition(b" ")[0].decode(), arrived) == (method, BODY[:size])
        assert field_value(head, "content-length") in ((None, "0") if not size else (str(size),))
        assert field_value(head, "transfer-encoding") is None


BODY = bytes(range(256)) * 1200


@SERVERS
async def test_a_chunked_body_arrives_chunked(stock: bool, hooks: str) -> None:
    upstream = Recording()
    head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with proxied(upstream, stock=stock, hooks=hooks) as it:
        got = await converse(it.port, head + b"5\r\nhello\r\n", b"6\r\n world\r\n0\r\n\r\n")

    assert got.statuses == [200]
    (arrived, body) = upstream.requests[0]
    assert field_value(arrived, "transfer-encoding") == "chunked"
    assert b"".join(body.split(b"\r\n")[1::2]) == b"hello world"


STATUSES = [200, 201, 204, 206, 301, 304, 400, 401, 404, 410, 418, 429, 500, 503, 599]


@SERVERS
async def test_each_status_comes_back_with_its_fields(stock: bool, hooks: str) -> None:
    fields = [b"x-own: 1", b'etag: W/"1"', b"set-cookie: a=1", b"set-cookie: b=2", b"server: up", b"retry-after: 7"]
    answers = [
        b"\r\n".join([b"HTTP/1.1 %d Some Reason" % status, *fields])
        + (b"\r\n\r\n" if status in (204, 304) else b"\r\ncontent-length: 4\r\n\r\nbody")
        for status in STATUSES
    ]
    async with proxied(answering(*answers), stock=stock, hooks=hooks) as it, connected(it.port) as client:
        for status in STATUSES:
            reply = await client.request("GET", "/a")
            assert (reply.status, reply.body) == (status, b"" if status in (204, 304) else b"body")
            assert [reply[name] for name in ("x-own", "etag", "server", "retry-after")] == ["1", 'W/"1"', "up", "7"]
            assert reply.all("set-cookie") == ["a=1", "b=2"]


CODED = gzip.compress(b"text" * 100, mtime=0)
FRAMINGS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(CODED) + CODED,
    "chunked": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(CODED), CODED),
    "close": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + CODED,
    "http/1.0": b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + CODED,
}


@SERVERS
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_comes_back_in_its_coding_whatever_its_framing(stock: bool, hooks: str, framing: str) -> None:
    handler = answering(FRAMINGS[framing], close=framing in ("close", "http/1.0"))
    async with proxied(handler, stock=stock, hooks=hooks) as it:
        reply = await fetch(it.port, "GET", "/a", [("accept-encoding", "gzip")])

    assert (reply.status, reply.body, reply["content-encoding"]) == (200, CODED, "gzip")


@SERVERS
@pytest.mark.parametrize("length", [b"", b"content-length: 12345\r\n", b"transfer-encoding: chunked\r\n"])
async def test_the_head_of_a_response_to_head_is_passed_on(stock: bool, hooks: str, length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"x-own: 1\r\n\r\n"
    async with proxied(answering(answer), stock=stock, hooks=hooks) as it, connected(it.port) as client:
        first, second = [await client.request("HEAD", "/a") for _ in range(2)]

    assert (first.status, first.body, first["x-own"]) == (200, b"", "1")
    expected = ["12345"] if b"12345" in length else []
    assert first.all("content-length") == second.all("content-length") == expected


@SERVERS
async def test_a_connection_to_the_upstream_serves_many_requests(stock: bool, hooks: str) -> None:
    async with proxied(answering(response(b"ok")), stock=stock, hooks=hooks) as it, connected(it.port) as client:
        for _ in range(5):
            assert (await client.request("GET", "/a")).status == 200
        for _ in range(5):
            assert (await client.request("POST", "/a", body=b"x" * 100_000)).status == 200

        assert len(it.upstream.connections) == 1


@SERVERS
async def test_an_upstream_that_refuses_connections_gives_a_problem(stock: bool, hooks: str) -> None:
    async with proxied(answering(response(b"ok")), stock=stock, hooks=hooks) as it:
        it.upstream.refuse()
        reply = await fetch(it.port, "GET", "/a")

    assert (reply.status, reply.json["type"], reply["proxy-status"]) == (
        502,
        "urn:umbel:problem:connect",
        'umbel;error=connection_refused;next-hop="up"',
    )


@SERVERS
async def test_an_early_answer_ends_an_upload(stock: bool, hooks: str) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"no", b"connection: close", status=b"413 Content Too Large"))
        await trio.sleep_forever()

    async with proxied(refusing, stock=stock, hooks=hooks) as it, connected(it.port) as client:
        head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 10000000\r\n\r\n"
        await client.stream.send_all(head + b"x" * 1000)
        reply = await client.reply("POST")

    assert (reply.status, reply.body) == (413, b"no")


@SERVERS
@pytest.mark.parametrize("preserved", [True, False])
async def test_the_host_is_that_of_the_upstream_or_of_the_client(stock: bool, hooks: str, preserved: bool) -> None:
    upstream = Recording()
    async with proxied(upstream, stock=stock, hooks=hooks, preserve_host=preserved) as it:
        await fetch(it.port, "GET", "/a")

    host = field_value(upstream.requests[0][0], "host")
    assert host == ("gateway.test" if preserved else f"127.0.0.1:{int(it.upstream)}")


@pytest.mark.parametrize("size", [17_000_000])
async def test_a_body_over_the_limit_of_the_server_is_passed_on(hooks: str, size: int) -> None:
    got: list[int] = []

    async def upstream(peer: Peer) -> None:
        head = await peer.read_head()
        left = int(field_value(head, "content-length") or 0) - len(peer.buffer)
        while left > 0:
            left -= len(await peer.stream.receive_some())
        got.append(left)
        await peer.send(response(b"ok"))

    async with proxied(upstream, hooks=hooks) as it:
        reply = await fetch(it.port, "POST", "/a", body=bytes(size))

    assert (reply.status, got) == (200, [0])


async def test_a_location_with_the_client_s_host_is_rewritten_if_the_host_is_preserved(hooks: str) -> None:
    moved = response(b"", b"location: http://gateway.test/v2/x", b"proxy-status: up;error=x", status=b"302 Found")
    async with proxied(answering(moved), hooks=hooks, preserve_host=True, path="/v2/{+rest}") as it:
        reply = await fetch(it.port, "GET", "/a")

    assert (reply["location"], reply["proxy-status"]) == ("/x", "up;error=x")


async def test_an_empty_segment_that_would_leave_another_route_is_refused(hooks: str) -> None:
    upstream = Recording()
    async with raw_server(upstream) as port:
        app, _ = proxy_app(int(port), hooks=hooks, routes=[{"path": "/admin/<path:x>", "respond": {"text": "no"}}])
        async with serving(app) as gate:
            statuses = [
                (await fetch(gate, "GET", path)).status for path in ("/admin/x", "/admin//x", "/a//b", "//admin/x")
            ]

    assert statuses == [200, 400, 200, 308]
    assert [head.partition(b" HTTP")[0] for head, _ in upstream.requests] == [b"GET /a//b"]


async def test_a_value_of_the_client_in_a_configured_field_keeps_its_bytes(hooks: str) -> None:
    upstream = Recording(response(b"{}", b"content-type: application/json"))
    call = {"upstream": "up", "path": "/call", "headers": {"x-q": "{headers.x_q}", "x-c": "{cookies.c}"}}
    route = {"path": "/call/<p>", "calls": {"a": call}, "answer": {"headers": {"x-q": "{headers.x_q}"}}}
    changes = {"set": {"x-q": "{headers.x_q}", "x-p": "{headers.x_q}-{path.rest}", "x-c": "{cookies.c}"}}
    fields = b"host: gateway.test\r\nx-q: a\xe4\r\ncookie: c=\xfc\r\nconnection: close\r\n\r\n"
    async with proxied(upstream, hooks=hooks, request_headers=changes, routes=[route]) as it:
        await converse(it.port, b"GET /%C3%B6 HTTP/1.1\r\n" + fields)
        answer = await converse(it.port, b"GET /call/1 HTTP/1.1\r\n" + fields)

    lines = [head.split(b"\r\n") for head, _ in upstream.requests]
    assert [b"x-q: a\xe4" in each for each in lines] == [True, True]
    assert [b"x-c: \xfc" in each for each in lines] == [True, True]
    assert b"x-p: a\xe4-\xc3\xb6" in lines[0]
    assert answer.statuses == [200]


async def test_a_426_has_its_upgrade_and_the_option_for_it(hooks: str) -> None:
    asks = response(b"", b"upgrade: websocket", b"connection: upgrade", status=b"426 Upgrade Required")
    async with proxied(answering(asks), hooks=hooks) as it, connected(it.port) as client:
        first, second = [await client.request("GET", "/a") for _ in range(2)]

    assert [(each.status, each["upgrade"], each["connection"]) for each in (first, second)] == [
        (426, "websocket", "upgrade")
    ] * 2
