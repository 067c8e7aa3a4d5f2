"""Header fields that belong to a status, such as Retry-After and Allow, are sent with that status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.server.serving import Reply, fetch, serving
from tests.support.upstream.raw_server import Peer, answering, raw_server, response
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel

Lines = list[tuple[str, str]]


def gateway(port: int, *routes: dict[str, Any], upstream: dict[str, Any] | None = None) -> Umbel:
    urls = [f"http://127.0.0.1:{int(port)}"]
    config = {"upstreams": {"u": {"urls": urls, **(upstream or {})}}, "routes": list(routes)}
    return Umbel(__name__, Config.model_validate(config))


def route(answer: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    return {"path": "/r", "calls": {"a": {"upstream": "u", "path": "/a", **call}}, "answer": answer or {}}


async def failing(
    status: str, fields: Iterable[bytes], route: dict[str, Any], *, sent: Iterable[tuple[str, str]] = ()
) -> Reply:
    """Return the answer of ``route`` if the upstream responds with this status and these fields."""
    upstream = answering(response(b'{"no":1}', *fields, status=status.encode()))
    async with raw_server(upstream) as port, serving(gateway(port, route)) as gate:
        return await fetch(gate, "GET", "/r", sent)


CHALLENGE = b'WWW-Authenticate: Bearer realm="x", error="invalid_token"'
BELONGING: dict[str, tuple[str, list[bytes], Lines]] = {
    "401": (
        "401 Unauthorized",
        [CHALLENGE, b'WWW-Authenticate: Basic realm="y, z"', b"DPoP-Nonce: n"],
        [
            ("www-authenticate", 'Bearer realm="x", error="invalid_token"'),
            ("www-authenticate", 'Basic realm="y, z"'),
            ("dpop-nonce", "n"),
        ],
    ),
    "403 with a challenge": (
        "403 Forbidden",
        [b'WWW-Authenticate: Bearer error="insufficient_scope"'],
        [("www-authenticate", 'Bearer error="insufficient_scope"')],
    ),
    "405": ("405 Method Not Allowed", [b"Allow: GET, PUT"], [("allow", "GET, PUT")]),
    "405 that allows nothing": ("405 Method Not Allowed", [b"Allow: "], [("allow", "")]),
    "413": ("413 Content Too Large", [b"Retry-After: 9"], [("retry-after", "9")]),
    "415": (
        "415 Unsupported Media Type",
        [b"Accept-Encoding: gzip", b"Accept-Post: text/csv", b"Accept: text/csv", b"Accept-Patch: text/csv"],
        [
            ("accept-encoding", "gzip"),
            ("accept-post", "text/csv"),
            ("accept", "text/csv"),
            ("accept-patch", "text/csv"),
        ],
    ),
    "416": ("416 Range Not Satisfiable", [b"Content-Range: bytes */47"], [("content-range", "bytes */47")]),
    "429": (
        "429 Too Many Requests",
        [
            b"Retry-After: 7",
            b'RateLimit-Policy: "default";q=100;w=60',
            b'RateLimit: "default";r=0;t=7',
            b"RateLimit-Reset: 7",
            b"X-RateLimit-Remaining: 0",
            b"X-Rate-Limit-Limit: 100",
        ],
        [
            ("retry-after", "7"),
            ("ratelimit-policy", '"default";q=100;w=60'),
            ("ratelimit", '"default";r=0;t=7'),
            ("ratelimit-reset", "7"),
            ("x-ratelimit-remaining", "0"),
            ("x-rate-limit-limit", "100"),
        ],
    ),
    "451": ("451 Unavailable", [b'Link: </law>; rel="blocked-by"'], [("link", '</law>; rel="blocked-by"')]),
    "503": (
        "503 Service Unavailable",
        [b"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"],
        [("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")],
    ),
    "302": (
        "302 Found",
        [b"Location: ../new?x=1#f", b"Retry-After: 2"],
        [("location", "../new?x=1#f"), ("retry-after", "2")],
    ),
    "308 to another host": (
        "308 Permanent Redirect",
        [b"Location: https://other.example/"],
        [("location", "https://other.example/")],
    ),
}
# Fields that belong to none of these statuses; they are sent together with fields of another status.
OTHERS = [b"X-Other: 1", b"Set-Cookie: a=b", b"Server: nginx", b"ETag: x"]
NAMES = {name for _, _, wanted in BELONGING.values() for name, _ in wanted} | {
    "x-other",
    "set-cookie",
    "server",
    "etag",
}


def told(reply: Reply) -> Lines:
    return sorted((name, value) for name, value in reply.headers if name in NAMES)


@pytest.mark.parametrize("pass_body", [False, True])
@pytest.mark.parametrize(("status", "fields", "wanted"), BELONGING.values(), ids=BELONGING)
async def test_a_passed_status_keeps_its_fields(
    status: str, fields: list[bytes], wanted: Lines, pass_body: bool
) -> None:
    passing = route(pass_status=[int(status[:3])], pass_body=pass_body)
    reply = await failing(status, [*fields, *OTHERS], passing)
    assert reply.status == int(status[:3])
    assert told(reply) == sorted(wanted)
    assert reply["cache-control"] == "no-store"
    assert reply["content-type"] == "application/problem+json" or pass_body


CREATED: list[tuple[dict[str, Any], list[str]]] = [
    ({"status": 201}, ["/things/1"]),
    ({"status": 201, "forward_headers": {"a": ["location"]}}, ["/things/1"]),
    ({"status": 201, "headers": {"location": "/mine/{a.no}"}}, ["/mine/1"]),
    ({}, []),
    ({"status": 202}, []),
]


@pytest.mark.parametrize(("answer", "wanted"), CREATED)
async def test_the_location_of_a_201_is_only_in_an_answer_with_201(answer: dict[str, Any], wanted: list[str]) -> None:
    fields = [b"Location: /things/1", b"Retry-After: 9"]
    reply = await failing("201 Created", fields, route(answer))
    assert (reply.status, reply.all("location")) == (answer.get("status", 200), wanted)
    assert not reply.all("retry-after")


async def test_the_location_of_a_200_is_not_in_an_answer_with_201() -> None:
    reply = await failing("200 OK", [b"Location: /things/1"], route({"status": 201}))
    assert (reply.status, reply.all("location")) == (201, [])


@pytest.mark.parametrize(("status", "fields", "wanted"), BELONGING.values(), ids=BELONGING)
async def test_a_status_that_is_not_passed_on_brings_no_fields(status: str, fields: list[bytes], wanted: Lines) -> None:
    reply = await failing(
        status, [*fields, *OTHERS], route(pass_status=[], answer={"forward_headers": {"a": ["x-other"]}})
    )
    assert (reply.status, told(reply)) == (502, [])


async def test_forwarded_fields_of_a_502_are_sent_only_if_the_502_is_passed_on() -> None:
    answer = {"forward_headers": {"a": ["x-other"]}}
    reply = await failing("502 Bad Gateway", [b"X-Other: 1"], route(answer=answer))
    assert (reply.status, reply.all("x-other")) == (502, [])
    passed = await failing("502 Bad Gateway", [b"X-Other: 1"], route(answer=answer, pass_status=[502]))
    assert (passed.status, passed.all("x-other")) == (502, ["1"])


async def test_a_cookie_of_a_response_with_an_unusable_body_is_passed_on() -> None:
    answer = {"forward_cookies": {"a": ["sid"]}, "forward_headers": {"a": ["x-other"]}}
    upstream = answering(response(b"<html>", b"Set-Cookie: sid=1", b"Set-Cookie: t=1", b"X-Other: 1"))
    async with raw_server(upstream) as port, serving(gateway(port, route(answer=answer))) as gate:
        reply = await fetch(gate, "GET", "/r")
    assert (reply.status, reply.all("set-cookie"), reply.all("x-other")) == (502, ["sid=1"], [])


async def test_a_503_without_retry_after_gets_one_from_the_gateway() -> None:
    for pass_body in (False, True):
        reply = await failing("503 Busy", [], route(pass_status=[503], pass_body=pass_body))
        assert (reply.status, reply["retry-after"]) == (503, "1")


async def test_forwarded_fields_are_sent_once_with_a_passed_status() -> None:
    answer = {"forward_headers": {"a": ["www-authenticate", "x-other", "retry-after"]}}
    fields = [CHALLENGE, b"X-Other: 1", b"Retry-After: 3"]
    reply = await failing("401 Unauthorized", fields, route(pass_status=[401], answer=answer))
    assert reply.status == 401
    assert len(reply.all("www-authenticate")) == 1
    assert (reply["x-other"], reply["retry-after"]) == ("1", "3")


@pytest.mark.parametrize(("status", "expected"), [("401 Unauthorized", 401), ("500 Oops", 502)])
async def test_a_forwarded_cookie_is_passed_on_with_any_status_of_the_call(status: str, expected: int) -> None:
    cookies = [b"Set-Cookie: sid=; Max-Age=0", b"Set-Cookie: other=1"]
    answer = {"forward_cookies": {"a": ["sid"]}}
    required = await failing(status, cookies, route(pass_status=[401], answer=answer))
    optional = await failing(status, cookies, route(optional=True, default=1, answer=answer))
    assert (required.status, required.all("set-cookie")) == (expected, ["sid=; Max-Age=0"])
    assert (optional.status, optional.all("set-cookie")) == (200, ["sid=; Max-Age=0"])


async def test_a_dependant_of_a_failed_call_does_not_repeat_its_cookie() -> None:
    both: dict[str, Any] = route(pass_status=[401], answer={"forward_cookies": {"a": ["s"], "b": ["s"]}})
    both["calls"]["b"] = {"upstream": "u", "path": "/b/{a.id}", "optional": True}
    both["calls"]["a"]["optional"] = True
    reply = await failing("401 Unauthorized", [CHALLENGE, b"Set-Cookie: s=1"], both)
    assert (reply.status, reply.all("set-cookie")) == (401, ["s=1"])
    assert len(reply.all("www-authenticate")) == 1
    received = {call["name"]: (call["status"], call.get("received_status")) for call in reply.json["calls"]}
    assert received == {"a": (401, 401), "b": (401, None)}
    assert reply["proxy-status"] == 'umbel;received-status=401;next-hop="a", umbel;next-hop="b"'


async def test_the_answer_has_the_fields_of_a_failed_items_status() -> None:
    each = route(each="`[1, 2]`")
    reply = await failing("429 Slow", [b"Retry-After: 7", b"RateLimit-Reset: 7"], each)
    assert (reply.status, reply["retry-after"], reply["ratelimit-reset"]) == (429, "7", "7")


async def test_the_first_value_of_a_repeated_singleton_field_counts() -> None:
    fields = [b"Location: /one", b"Location: //evil.example", b"Retry-After: 1", b"Retry-After: 2"]
    reply = await failing("302 Found", fields, route(pass_status=[302]))
    assert (reply["location"], reply["retry-after"]) == ("/one", "1")


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        ([b"Content-Type: text/html", b"content-type: text/plain"], ["text/plain"]),
        ([b"Content-Type: text/html", b"Content-Type: "], ["text/html"]),
        ([b"Content-Type: "], ["application/octet-stream"]),
        ([], ["application/octet-stream"]),
    ],
)
async def test_a_passed_body_has_one_content_type(types: list[bytes], wanted: list[str]) -> None:
    reply = await failing("404 Not Found", types, route(pass_body=True))
    assert (reply.status, reply.all("content-type")) == (404, wanted)


async def test_too_many_fields_are_left_out_of_the_answer() -> None:
    long, many = b"WWW-Authenticate: Basic " + b"x" * 20_000, [b"WWW-Authenticate: A%d" % n for n in range(80)]
    reply = await failing("401 Unauthorized", [long, *many], route(pass_status=[401]))
    assert reply.status == 401
    assert reply.all("www-authenticate") == [f"A{n}" for n in range(32)]


async def test_a_stream_that_fails_before_its_first_line_has_the_fields_of_its_status() -> None:
    streamed = {**route(pass_status=[405]), "stream": True}
    reply = await failing("405 No", [b"Allow: PUT"], streamed)
    assert (reply.status, reply["allow"]) == (405, "PUT")


async def test_a_failed_composition_in_code_has_the_fields_of_its_status() -> None:
    async with raw_server(answering(response(b"{}", b"Retry-After: 7", b"RateLimit: r", status=b"429 Slow"))) as port:
        app = gateway(port)

        @app.compose("/r")
        async def handler(compose: Any) -> Any:
            async with compose.gather() as calls:
                calls.get("u", "/a")

        async with serving(app) as gate:
            reply = await fetch(gate, "GET", "/r")
    assert (reply.status, reply["retry-after"], reply["ratelimit"]) == (429, "7", "r")


async def test_a_problem_document_has_the_received_status_of_each_call() -> None:
    async def answer(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            status = b"401 Unauthorized" if b"GET /a " in head else b"503 Busy"
            await peer.send(response(b"{}", status=status))

    three = route()
    three["calls"] |= {
        "b": {"upstream": "u", "path": "/b", "optional": True},
        "c": {"upstream": "u", "path": "/{b.id}", "optional": True},
    }
    three["calls"]["a"] |= {"path": "/a"}
    async with raw_server(answer) as port, serving(gateway(port, three)) as gate:
        reply = await fetch(gate, "GET", "/r")
    assert reply.status == 502
    calls = {call["name"]: (call["status"], call.get("received_status")) for call in reply.json["calls"]}
    assert calls["a"] == (502, 401)
    assert "upstream" not in reply.body.decode()


async def test_a_call_without_a_response_has_no_received_status() -> None:
    async def close(peer: Peer) -> None:
        await peer.read_request()

    async with raw_server(close) as port, serving(gateway(port, route())) as gate:
        reply = await fetch(gate, "GET", "/r")
    (call,) = reply.json["calls"]
    assert (reply.status, call["kind"]) == (502, "reset")
    assert "received_status" not in call


def reading(**call: Any) -> dict[str, Any]:
    """A route with a query parameter whose name is that of a credential, and one call with these keys."""
    return {**route(**call), "query": {"api_key": {}, "page": {}}, "methods": ["POST"]}


OWN = {"headers": {"authorization": "Bearer own"}}
CARRYING: dict[str, dict[str, Any]] = {
    "authorization": reading(forward_headers=["authorization"]),
    "a cookie": reading(forward_cookies=["sid"]),
    "an API key in a header": reading(forward_headers=["x-api-key"]),
    "a key of another name": reading(forward_headers=["ocp-apim-subscription-key"]),
    "a header in a template": reading(headers={"x-user": "{headers.x_access_token}"}),
    "a query parameter": reading(forward_query=["access_token"]),
    "a declared query parameter": reading(path="/a{?api_key}"),
    "an expression": reading(params={"key": "query.api_key"}),
    "a member of the body": reading(json={"secret": "body.password"}, **OWN),
    "a bound name": reading(**{"with": {"t": "headers.x_token"}}, path="/a/{t}"),
    "a body as it came": reading(forward_body=True),
    "a body as a whole": reading(json="body"),
}
NOT_CARRYING: dict[str, dict[str, Any]] = {
    "nothing": reading(),
    "a credential of the gateway's": reading(**OWN),
    "a body beside a credential of the gateway's": reading(forward_body=True, **OWN),
    "other headers": reading(forward_headers=["accept-language", "idempotency-key"]),
    "other parameters": reading(path="/a{?page}", forward_query=["keyword", "author"]),
    "what only decides whether it is made": reading(when="headers.authorization != 'x'"),
}


@pytest.mark.parametrize("made", CARRYING.values(), ids=CARRYING)
async def test_a_401_to_a_call_with_the_clients_credential_is_passed_on(made: dict[str, Any]) -> None:
    reply = await refused_with_401(made)
    assert (reply.status, reply["www-authenticate"]) == (401, 'Bearer realm="x", error="invalid_token"')


@pytest.mark.parametrize("made", NOT_CARRYING.values(), ids=NOT_CARRYING)
async def test_a_401_to_a_call_without_the_clients_credential_is_a_502(made: dict[str, Any]) -> None:
    reply = await refused_with_401(made)
    assert (reply.status, reply.all("www-authenticate")) == (502, [])
    assert reply.json["calls"][0]["received_status"] == 401


async def refused_with_401(made: dict[str, Any]) -> Reply:
    upstream = answering(response(b"{}", CHALLENGE, status=b"401 Unauthorized"))
    sent = [JSON_TYPE, ("x-access-token", "t"), ("x-token", "t"), ("cookie", "sid=1")]
    async with raw_server(upstream) as port, serving(gateway(port, made)) as gate:
        return await fetch(gate, "POST", "/r?api_key=k&access_token=t", sent, b'{"password":"p"}')


async def test_a_401_is_passed_on_if_the_upstreams_headers_read_the_clients_credential() -> None:
    upstream = answering(response(b"{}", CHALLENGE, status=b"401 Unauthorized"))
    made = {"headers": {"x-user": "{headers.authorization}"}}
    sent = [("authorization", "Bearer x")]
    async with raw_server(upstream) as port, serving(gateway(port, route(), upstream=made)) as gate:
        assert (await fetch(gate, "GET", "/r", sent)).status == 401


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Cookie": "sid=1"}}, 401),
        ({"params": {"api_key": "k"}}, 401),
        ({"json": {"user": "u", "password": "p"}}, 401),
        ({"headers": {"Accept-Language": "de"}, "json": {"sku": 1}}, 502),
        ({}, 502),
        ({"headers": {"Cookie": "sid=1"}, "pass_status": [403]}, 502),
    ],
)
async def test_a_401_to_a_call_in_code_is_passed_on_if_its_options_forward_a_credential(
    options: dict[str, Any], status: int
) -> None:
    upstream = answering(response(b"{}", status=b"401 Unauthorized"))
    async with raw_server(upstream) as port:
        app = gateway(port)

        @app.compose("/r")
        async def handler(compose: Any) -> Any:
            async with compose.gather() as calls:
                calls.post("u", "/a", **options)

        async with serving(app) as gate:
            assert (await fetch(gate, "GET", "/r")).status == status


JSON_TYPE = ("content-type", "application/json")


async def posted(route: dict[str, Any], *fields: tuple[str, str], body: bytes = b"{}") -> tuple[Reply, list[bytes]]:
    """Post to a route; return the answer, and the heads and bodies of the calls."""
    asked: list[bytes] = []

    async def answer(peer: Peer) -> None:
        while True:
            head, content = await peer.read_request()
            if not head:
                return
            asked.append(head.lower() + content)
            await peer.send(response(b"1"))

    async with raw_server(answer) as port, serving(gateway(port, route)) as gate:
        return await fetch(gate, "POST", "/r", fields, body), asked


UNKNOWN = ["rot13", "none", "gzip;q=1", "gzip gzip", "gzip, foo", "'gzip'", '"gzip"', "brotli"]


@pytest.mark.parametrize("coding", ["compress", "br, gzip", "identity, xz", *UNKNOWN])
async def test_a_body_with_an_unsupported_coding_is_refused_with_accept_encoding(coding: str) -> None:
    reply, asked = await posted(route(json="body"), JSON_TYPE, ("content-encoding", coding))
    assert (reply.status, reply["accept-encoding"], asked) == (415, "gzip, deflate, zstd, br", [])
    assert not reply.all("accept")


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "identity, identity", "UTF-8"])
async def test_a_body_without_a_coding_is_read(coding: str) -> None:
    for call in ({"json": "body"}, {"forward_body": True}, {"json": "body", "forward_headers": ["content-encoding"]}):
        reply, asked = await posted(route(**call), JSON_TYPE, ("content-encoding", coding))
        assert (reply.status, len(asked)) == (200, 1)
        assert b"content-encoding" not in asked[0]


@pytest.mark.parametrize(
    ("form", "wanted"), [("json", "application/json"), ("form", "application/x-www-form-urlencoded")]
)
async def test_a_body_of_an_unsupported_type_is_refused_with_the_supported_type(form: str, wanted: str) -> None:
    reply, asked = await posted({**route(json="body"), "body": form}, ("content-type", "text/csv"))
    assert (reply.status, reply["accept"], asked) == (415, wanted, [])
    assert not reply.all("accept-encoding")


@pytest.mark.parametrize("coding", ["gzip", "br, gzip", "zstd"])
async def test_a_body_of_bytes_is_forwarded_with_its_content_coding(coding: str) -> None:
    zipped = b"\x1f\x8b\x08\x00\xff{}"
    bytes_route = {**route(forward_body=True), "body": "bytes"}
    sent = [("content-type", "text/csv"), ("content-encoding", coding)]
    reply, asked = await posted(bytes_route, *sent, body=zipped)
    assert reply.status == 200
    head, _, content = asked[0].partition(b"\r\n\r\n")
    assert content == zipped
    assert head.count(b"content-encoding: %b\r\n" % coding.encode()) == 1
    assert b"content-type: text/csv\r\n" in head


async def test_a_content_encoding_that_the_call_forwards_itself_is_sent_once() -> None:
    bytes_route = {**route(forward_body=True, forward_headers=["content-encoding"]), "body": "bytes"}
    _, asked = await posted(bytes_route, ("content-encoding", "gzip"))
    assert asked[0].count(b"content-encoding: gzip\r\n") == 1


async def test_refusals_of_the_gateway_have_the_fields_of_their_status() -> None:
    async with raw_server(answering(response(b"1"))) as port, serving(gateway(port, route())) as gate:
        put = await fetch(gate, "PUT", "/r")
        probe = await fetch(gate, "POST", "/livez")
    assert (put.status, put["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (probe.status, probe["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_an_error_that_a_view_raises_keeps_the_fields_of_its_status() -> None:
    from werkzeug.datastructures import WWWAuthenticate
    from werkzeug.exceptions import MethodNotAllowed, RequestedRangeNotSatisfiable, TooManyRequests, Unauthorized

    async with raw_server(answering(response(b"1"))) as port:
        app = gateway(port)
        errors = {
            "/401": Unauthorized(www_authenticate=WWWAuthenticate("basic", {"realm": "x"})),
            "/405": MethodNotAllowed(["PUT"]),
            "/416": RequestedRangeNotSatisfiable(length=47),
            "/429": TooManyRequests(retry_after=7),
        }

        @app.get("/<n>")
        async def view(n: str) -> None:
            raise errors[f"/{n}"]

        async with serving(app) as gate:
            got = {path: await fetch(gate, "GET", path) for path in errors}
    assert [int(path[1:]) for path in got] == [reply.status for reply in got.values()]
    assert got["/401"]["www-authenticate"] == "Basic realm=x"
    assert got["/405"]["allow"] == "PUT"
    assert got["/416"]["content-range"] == "bytes */47"
    assert got["/429"]["retry-after"] == "7"
