"""Caching of answers: Cache-Control, validators, and the conditional fields of a client."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import write
from tests.support.server.serving import Reply, fetch, serving
from tests.support.upstream.raw_server import Peer, answering, raw_server, response
from umbel.cli import main
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel

PUBLIC = "public, max-age=3600, s-maxage=60"
COOKIE = b"Set-Cookie: sid=1; Path=/"
LANGUAGE = b"Set-Cookie: lang=de"


def gateway(port: int, *routes: dict[str, Any]) -> Umbel:
    upstream = {"urls": [f"http://127.0.0.1:{int(port)}"]}
    return Umbel(__name__, Config.model_validate({"upstreams": {"u": upstream}, "routes": list(routes)}))


def route(answer: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    return {"path": "/r", "calls": {"a": {"upstream": "u", "path": "/a", **call}}, "answer": answer or {}}


async def answered(answer: dict[str, Any], *fields: bytes, sent: Iterable[tuple[str, str]] = (), **call: Any) -> Reply:
    """Return the answer to a client if the upstream's response has these fields."""
    upstream = answering(response(b"1", *fields))
    async with raw_server(upstream) as port, serving(gateway(port, route(answer, **call))) as gate:
        return await fetch(gate, "GET", "/r", sent)


@pytest.mark.parametrize(
    ("configured", "fields", "wanted"),
    [
        (PUBLIC, [], PUBLIC),
        (PUBLIC, [LANGUAGE], PUBLIC),
        (PUBLIC, [COOKIE], "private, max-age=3600"),
        ("max-age=5", [COOKIE], "private, max-age=5"),
        ("no-store", [COOKIE], "no-store"),
        ('public, x="a, public, b"', [COOKIE], 'private, x="a, public, b"'),
        (PUBLIC, [b"Cache-Control: private, max-age=5"], "private, max-age=3600"),
        (PUBLIC, [b'Cache-Control: private="x"'], "private, max-age=3600"),
        (PUBLIC, [b"Cache-Control: PRIVATE"], "private, max-age=3600"),
        (PUBLIC, [b"Cache-Control: no-store"], "no-store"),
        (PUBLIC, [b"Cache-Control: no-cache"], PUBLIC),
        ("private", [b"Cache-Control: max-age=5"], "private"),
        ("parts", [COOKIE, b"Cache-Control: public, max-age=5"], "private, max-age=5"),
        ("parts", [COOKIE], "private"),
        ("parts", [b"Vary: *", b"Cache-Control: public, max-age=5"], "no-cache, max-age=5"),
    ],
)
async def test_an_answer_for_one_client_is_never_public_whatever_is_configured(
    configured: str, fields: list[bytes], wanted: str
) -> None:
    reply = await answered({"cache_control": configured, "forward_cookies": {"a": ["sid"]}}, *fields)
    assert (reply.status, reply["cache-control"]) == (200, wanted)


@pytest.mark.parametrize("field", [("cookie", "lang=de"), ("authorization", "Bearer x")])
async def test_an_answer_to_a_request_with_a_credential_is_private_unless_the_route_says(
    field: tuple[str, str],
) -> None:
    lifetime = b"Cache-Control: public, max-age=30, s-maxage=60"
    assert (await answered({}, lifetime, sent=[field]))["cache-control"] == "private, max-age=30"
    assert (await answered({}, sent=[field]))["cache-control"] == "private"
    assert (await answered({"cache_control": PUBLIC}, lifetime, sent=[field]))["cache-control"] == PUBLIC
    assert not (await answered({})).all("cache-control")


async def test_a_304_has_the_cache_control_of_the_answer() -> None:
    async with raw_server(answering(response(b"1"))) as port, serving(gateway(port, route())) as gate:
        whole = await fetch(gate, "GET", "/r", [("cookie", "a=b")])
        again = await fetch(gate, "GET", "/r", [("cookie", "a=b"), ("if-none-match", whole["etag"])])
    assert (again.status, again["cache-control"]) == (304, "private")


async def test_fields_for_certain_caches_are_passed_only_with_public_answers() -> None:
    answer = {
        "headers": {"cdn-cache-control": "max-age=60", "surrogate-control": "max-age=60"},
        "cache_control": PUBLIC,
        "forward_cookies": {"a": ["sid"]},
    }
    plain = await answered(answer)
    cookie = await answered(answer, COOKIE)
    private = await answered(answer, b"Cache-Control: private")
    partial = await answered(answer, b"Content-Type: application/json; x", optional=True, ok=[299])
    assert (plain["cdn-cache-control"], plain["surrogate-control"]) == ("max-age=60", "max-age=60")
    for reply in (cookie, private, partial):
        assert reply.all("cdn-cache-control") == reply.all("surrogate-control") == []


async def test_a_session_of_the_application_makes_an_answer_private() -> None:
    from quart import session

    async with raw_server(answering(response(b"1"))) as port:
        app = gateway(port, route({"cache_control": PUBLIC}))
        app.secret_key = "a secret of the test"

        @app.before_request
        def visit() -> None:
            session["visits"] = 1

        @app.get("/own")
        async def own() -> Any:
            return "own", 200, {"cache-control": PUBLIC}

        async with serving(app) as gate:
            reply = await fetch(gate, "GET", "/r")
            own_view = await fetch(gate, "GET", "/own")
    assert len(reply.all("set-cookie")) == 1
    assert reply["cache-control"] == "private, max-age=3600"
    assert own_view["cache-control"] == PUBLIC


@pytest.mark.parametrize(
    ("headers", "sent", "fields", "wanted"),
    [
        ({}, [], [], None),
        ({}, [("cookie", "a=b")], [b"Cache-Control: public, max-age=5"], "private, max-age=5"),
        ({"Cache-Control": PUBLIC}, [("cookie", "a=b")], [], PUBLIC),
        ({"cache-control": PUBLIC}, [], [b"Cache-Control: max-age=5"], PUBLIC),
        ({"cache-control": PUBLIC}, [], [b"Cache-Control: private"], "private, max-age=3600"),
        ({"cache-control": PUBLIC, "Set-Cookie": "a=b"}, [], [], "private, max-age=3600"),
        ({"Set-Cookie": "a=b"}, [], [], "private"),
    ],
)
async def test_the_cache_control_of_an_answer_in_code_is_private_if_it_is_for_one_client(
    headers: dict[str, str], sent: list[tuple[str, str]], fields: list[bytes], wanted: str | None
) -> None:
    async with raw_server(answering(response(b"1", *fields))) as port:
        app = gateway(port)

        @app.compose("/r")
        async def handler(compose: Any) -> Any:
            async with compose.gather() as calls:
                calls.get("u", "/a")
            return {}, 200, headers

        async with serving(app) as gate:
            reply = await fetch(gate, "GET", "/r", sent)
    assert reply.all("cache-control") == ([] if wanted is None else [wanted])


async def test_the_vary_of_a_handler_is_sent_together_with_the_gateways() -> None:
    app = gateway(1)

    @app.compose("/r", vary=["x-tenant"])
    async def handler(_: Any) -> Any:
        return {}, 200, [("Vary", "Origin, accept"), ("vary", "X-Tenant,,"), ("x-bad", "a\nb"), ("x-good", "a")]

    async with serving(app) as gate:
        reply = await fetch(gate, "GET", "/r")
    assert (reply.status, reply.all("vary")) == (200, ["Accept, X-Tenant, Origin"])
    # An invalid field value removes only its field.
    assert (reply.all("x-bad"), reply.all("x-good")) == ([], ["a"])


CHECKED = """
[upstreams.u]
urls = ["http://h"]
[[routes]]
path = "/r"
calls.a = { upstream = "u", path = "/a"%s }
[routes.answer]
cache_control = "%s"
%s
"""


@pytest.mark.parametrize(
    ("call", "configured", "answer", "words"),
    [
        ("", PUBLIC, 'forward_cookies = { a = ["sid"] }', "forwards cookies (a)"),
        (', forward_cookies = ["sid"]', "s-maxage=5", "", "depends on the client's cookies"),
        (', forward_headers = ["authorization"]', "Public", "", "depends on the client's cookies"),
        (', headers = { x-user = "{headers.authorization}" }', PUBLIC, "", "depends on the client's cookies"),
        (', forward_headers = ["x-tenant"]', PUBLIC, "", ""),
        (', forward_cookies = ["sid"]', "private, max-age=5", 'forward_cookies = { a = ["sid"] }', ""),
    ],
)
def test_check_warns_of_forwarded_cookies_in_a_public_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, configured: str, answer: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CHECKED % (call, configured, answer))
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stdout) == (0, "umbel.toml: ok, 1 upstream, 1 route, 1 call\n")
    if not words:
        assert result.stderr == ""
        return
    assert result.stderr.startswith("warning: umbel.toml:8: routes[0].answer.cache_control: ")
    assert words in result.stderr
    as_json = CliRunner().invoke(main, ["check", "--json"])
    assert '"warnings": [{"file": "umbel.toml", "line": 8, "key": "routes[0].answer.cache_control", ' in as_json.stdout


ALL = ["if-none-match", "if-modified-since"]
DATE = "Fri, 31 Dec 1999 23:59:59 GMT"
VALIDATED = [
    b'ETag: W/"v1"',
    b"Last-Modified: " + DATE.encode(),
    b"Cache-Control: max-age=30",
    b"Expires: " + DATE.encode(),
    b"Content-Location: /a.json",
]


class Origin:
    """An upstream that evaluates conditional requests and keeps the request heads."""

    def __init__(self, *fields: bytes, status: bytes = b"304 Not Modified") -> None:
        self.heads: list[bytes] = []
        self._fields = fields or VALIDATED
        self._status = status

    async def __call__(self, peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            self.heads.append(head.lower())
            if any(b"\r\n%b: " % name in head.lower() for name in CONDITION_NAMES):
                fields = b"".join(field + b"\r\n" for field in self._fields)
                body = b"" if self._status[:3] == b"304" else b"Content-Length: 2\r\n"
                end = b"\r\n" if self._status[:3] == b"304" else b"\r\n{}"
                await peer.send(b"HTTP/1.1 %b\r\n%b%b%b" % (self._status, fields, body, end))
            else:
                await peer.send(response(b"1", *self._fields))


CONDITION_NAMES = (b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range", b"range")


async def visited(
    origin: Origin, made: dict[str, Any], *visits: Iterable[tuple[str, str]], method: str = "GET"
) -> list[Reply]:
    """Send several requests to one route and return the replies."""
    async with raw_server(origin) as port, serving(gateway(port, made)) as gate:
        return [await fetch(gate, method, "/r", sent) for sent in visits]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("forwarded", "sent"),
    [
        (ALL, [("if-none-match", 'W/"v1"')]),
        (ALL, [("if-modified-since", DATE)]),
        (["If-Modified-Since"], [("if-modified-since", DATE)]),
        (ALL, [("if-none-match", 'W/"v1"'), ("if-modified-since", DATE)]),
    ],
)
async def test_a_304_of_an_upstream_to_a_forwarded_condition_is_the_answer(
    forwarded: list[str], sent: list[tuple[str, str]], method: str
) -> None:
    first, again = await visited(Origin(), route(forward_headers=forwarded), [], sent, method=method)
    assert (first.status, again.status, again.body) == (200, 304, b"")
    names = ["last-modified", "cache-control", "expires", "content-location", "vary"]
    if forwarded is ALL:
        names.append("etag")
    for name in names:
        assert first[name] == again[name]
    assert first["cache-control"] == "max-age=30"
    assert first["vary"] == "Accept"
    assert again["umbel-completed"] == "true"
    assert not again.all("content-type") + again.all("content-length") + again.all("proxy-status")


async def test_a_condition_that_a_template_reads_through_with_counts_as_forwarded() -> None:
    made = route(**{"with": {"tag": "headers.if_none_match"}, "headers": {"if-none-match": "{tag}"}})
    first, again = await visited(Origin(), made, [], [("if-none-match", 'W/"v1"')])
    assert (first.status, again.status, again["etag"]) == (200, 304, first["etag"])


async def test_the_validators_of_an_answer_come_from_the_upstream_or_the_gateway_alone() -> None:
    etag, date = b'ETag: "v1"', b"Last-Modified: " + DATE.encode()

    async def validators(forwarded: list[str], *fields: bytes) -> tuple[list[str], list[str]]:
        (reply,) = await visited(Origin(*fields), route(forward_headers=forwarded), [])
        return reply.all("etag"), reply.all("last-modified")

    assert await validators(ALL, etag, date) == (['"v1"'], [DATE])
    assert await validators(ALL, date) == ([], [DATE])
    assert await validators(["if-none-match"], etag, date) == (['"v1"'], [])
    assert await validators(["if-modified-since"], etag, date) == ([], [DATE])
    for forwarded, fields in (([], [etag, date]), (["if-none-match"], [date]), (ALL, [b"X: 1"])):
        (own,), dates = await validators(forwarded, *fields)
        assert (own.startswith('"'), own == '"v1"', dates) == (True, False, [])


async def test_the_gateway_evaluates_a_condition_that_the_upstream_ignores() -> None:
    upstream = answering(response(b"1", b'ETag: W/"v1"'))
    async with raw_server(upstream) as port, serving(gateway(port, route(forward_headers=ALL))) as gate:
        same = await fetch(gate, "GET", "/r", [("if-none-match", '"v1"')])
        other = await fetch(gate, "GET", "/r", [("if-none-match", '"v2"')])
    assert (same.status, same.all("etag"), other.status) == (304, ['W/"v1"'], 200)


async def test_the_gateway_compares_its_own_etag_if_the_upstream_has_none() -> None:
    made = route(forward_headers=ALL)
    async with raw_server(answering(response(b"1"))) as port, serving(gateway(port, made)) as gate:
        whole = await fetch(gate, "GET", "/r")
        again = await fetch(gate, "GET", "/r", [("if-none-match", whole["etag"])])
    assert (whole.status, again.status) == (200, 304)


async def test_a_client_that_accepts_a_stream_gets_one_despite_its_conditions() -> None:
    origin = Origin()
    sent = [("accept", "application/x-ndjson"), ("if-none-match", 'W/"v1"')]
    (reply,) = await visited(origin, route(forward_headers=ALL), sent)
    assert (reply.status, reply.body.splitlines()[0]) == (200, b'{"call":"a","value":1}')
    assert b"if-none-match" not in origin.heads[0]


async def test_a_304_to_an_unconditional_request_is_a_502() -> None:
    bare = b"HTTP/1.1 304 Not Modified\r\n\r\n"
    async with raw_server(answering(bare)) as port, serving(gateway(port, route(forward_headers=ALL))) as gate:
        reply = await fetch(gate, "GET", "/r")
    assert (reply.status, reply.json["calls"][0]["received_status"]) == (502, 304)


async def test_if_modified_since_is_not_forwarded_without_the_if_none_match() -> None:
    origin = Origin()
    sent = [("if-none-match", '"own"'), ("if-modified-since", DATE)]
    (reply,) = await visited(origin, route(forward_headers=["if-modified-since"]), sent)
    assert reply.status == 200
    assert b"if-modified-since" not in origin.heads[0]


@pytest.mark.parametrize("status", ["412 Precondition Failed", "428 Precondition Required"])
async def test_the_status_of_a_failed_precondition_is_passed_on(status: str) -> None:
    made = {**route(forward_headers=["if-match"], method="PUT", forward_body=True), "methods": ["PUT"], "body": "bytes"}
    (reply,) = await visited(Origin(b"X: 1", status=status.encode()), made, [("if-match", '"v1"')], method="PUT")
    assert reply.status == int(status[:3])


async def test_a_range_of_items_is_forwarded() -> None:
    part = [b"Content-Range: items 0-9/47", b'ETag: "v1"']
    made = route(forward_headers=["range", "if-range"])
    (reply,) = await visited(Origin(*part, status=b"206 Partial Content"), made, [("range", "items=0-9")])
    assert (reply.status, reply["content-range"], reply.json) == (206, "items 0-9/47", {"a": {}})
    origin = Origin(b"Content-Range: items */47", status=b"416 Range Not Satisfiable")
    (reply,) = await visited(origin, made, [("range", "items=99-")])
    assert (reply.status, reply["content-range"]) == (416, "items */47")


async def test_a_range_of_bytes_is_not_forwarded() -> None:
    origin = Origin(status=b"206 Partial Content")
    made = route(forward_headers=["range", "if-range"])
    (reply,) = await visited(origin, made, [("range", "bytes=0-0"), ("if-range", '"v1"')])
    assert (reply.status, reply.json) == (200, {"a": 1})
    assert b"range" not in origin.heads[0]


@pytest.mark.parametrize("name", [name.decode() for name in CONDITION_NAMES])
@pytest.mark.parametrize(
    ("key", "why"),
    [
        ('calls.b = { upstream = "u", path = "/b" }', "the answer is made of 2 calls"),
        ('answer.shape = "a.x"', "the answer has a shape"),
        ("stream = true", "the answer is a stream"),
        ("", "its each makes many calls"),
    ],
)
def test_check_refuses_forwarded_conditions_unless_the_answer_is_one_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, key: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    upstream = '[upstreams.u]\nurls = ["http://h"]\n[[routes]]\npath = "/r"\n'
    each = "each = '`[1]`', " if not key else ""
    call = f'calls.a = {{ upstream = "u", path = "/a", {each}forward_headers = ["{name}"] }}\n'
    templated = call.replace(
        f'forward_headers = ["{name}"]', f'headers = {{ {name} = "{{headers.{name.replace("-", "_")}}}" }}'
    )
    bound = call.replace(
        f'forward_headers = ["{name}"]',
        f'with = {{ x = "headers.{name.replace("-", "_")}" }}, headers = {{ {name} = "{{x}}" }}',
    )
    for text, place in (
        (call, "forward_headers[0]"),
        (templated, f"headers.{name}"),
        (bound, f"headers.{name}"),
    ):
        write(tmp_path, f"{upstream}{text}{key}\n")
        result = CliRunner().invoke(main, ["check"])
        assert result.exit_code == 78
        assert result.stderr.startswith(
            f'umbel.toml:5: routes[0].calls.a.{place}: "{name}" works only if the answer is one response, but {why}; '
        )
        assert result.stderr.count("\n") == 1


def test_check_accepts_conditions_of_one_call_and_constant_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    upstream = '[upstreams.u]\nurls = ["http://h"]\n[[routes]]\npath = "/r"\n'
    names = ", ".join(f'"{name.decode()}"' for name in CONDITION_NAMES)
    one = f'calls.a = {{ upstream = "u", path = "/a", forward_headers = [{names}] }}\n'
    two = (
        'calls.a = { upstream = "u", path = "/a", method = "PUT", json = "`1`", headers = { if-none-match = "*" } }\n'
        'calls.b = { upstream = "u", path = "/b" }\n'
    )
    for text in (one, two):
        write(tmp_path, upstream + text)
        result = CliRunner().invoke(main, ["check"])
        assert (result.exit_code, result.stderr) == (0, "")
