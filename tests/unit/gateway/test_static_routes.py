"""Static routes: the bytes of their responses, hostile values in a Location, delays, and clients that leave."""

from __future__ import annotations

import gzip
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.server.asgi import living
from tests.support.server.inbound import MemoryRequest
from umbel.composition.plan.compiler import compile_route
from umbel.composition.static_response import RedirectTemplate
from umbel.composition.text.template import BadValueError
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind

from .gateways import gateway

MockClock = trio.testing.MockClock
MOVED = {"path": "/old/<a>/<b>", "query": ["q"], "redirect": {"to": "/{a}/{b}{?q}"}}
ABROAD = {"path": "/out/<a>/<b>", "redirect": {"to": "https://new.test/{a}{b}"}}
TEMPLATE = cast("RedirectTemplate", compile_route(Config.model_validate({"routes": [MOVED]}), 0).static)
HELLO = {"path": "/hello", "respond": {"json": {"hello": "world"}}}


async def asked(routes: list[dict[str, Any]], *requests: MemoryRequest) -> None:
    app, _ = gateway(*routes)
    async with living(app):
        for request in requests:
            await request.served_by(app)


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/old/evil.test/x", "/evil.test/x"),
        ("/old/javascript:alert(1)/x", "/javascript%3Aalert%281%29/x"),
        ("/old/a@evil.test/%0d%0aset-cookie:x=1", "/a%40evil.test/%0D%0Aset-cookie%3Ax%3D1"),
        ("/old/a/b?q=//evil.test/%5c", "/a/b?q=%2F%2Fevil.test%2F%5C"),
        ("/old/a/b?q=1&q=2%26x=3", "/a/b?q=2%26x%3D3"),
        ("/old/%C3%A9/%E2%80%AE", "/%C3%A9/%E2%80%AE"),
        ("/old/a/.%252e", "/a/.%252e"),
        ("/out/:1@evil.test/x", "https://new.test/%3A1%40evil.testx"),
        ("/out/.evil.test/x", "https://new.test/.evil.testx"),
    ],
)
async def test_a_value_stays_in_its_place_of_the_location(target: str, location: str) -> None:
    request = MemoryRequest(target=target)
    await asked([MOVED, ABROAD], request)
    assert (request.answer.status, request.answer["location"], request.answer.body) == (308, location, b"")
    assert request.answer.all("set-cookie") == []


@pytest.mark.parametrize(
    "target", ["/old//x", "/old/../x", "/old/%2e%2e/x", "/old/%2f/x", "/old/%5cevil/x", "//old/a/b", "/old/%00/x"]
)
async def test_an_ambiguous_path_makes_no_location_elsewhere(target: str) -> None:
    app, _ = gateway(MOVED)
    async with app.test_app() as running:
        response = await running.test_client().get(target)
    assert response.status_code in (308, 400, 404)
    assert response.headers.get("location", "/old/a/b") == "/old/a/b"


@given(st.text(), st.text(), st.text() | st.none())
def test_no_text_changes_the_origin_or_adds_a_segment(a: str, b: str, q: str | None) -> None:
    try:
        location = TEMPLATE.location({"path": {"a": a, "b": b}, "query": {"q": q}}).decode("ascii")
    except BadValueError:
        assert {a, b} & {"", ".", ".."}
        return
    assert location.isprintable()
    parts = urlsplit(urljoin("https://here.test/old/a/b", location))
    assert (parts.scheme, parts.netloc, parts.path.count("/"), parts.fragment) == ("https", "here.test", 2, "")
    assert parts.query.count("&") == 0


TREE = {"path": "/tree/<path:rest>", "redirect": {"to": "/{+rest}"}}


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/tree/a/b%20c/d", "/a/b%20c/d"),
        ("/tree/a/", "/a/"),
        ("/tree/evil.test", "/evil.test"),
        ("/tree/a%3Fb/c%23d/%E2%80%AE", "/a%3Fb/c%23d/%E2%80%AE"),
        ("/tree//evil.test", "/tree/evil.test"),
        ("/tree/a//evil.test", None),
        ("/tree/../evil.test", None),
        ("/tree/a/%2e%2e/b", None),
    ],
)
async def test_a_path_keeps_its_slashes_and_names_no_other_host(target: str, location: str | None) -> None:
    app, _ = gateway(TREE)
    async with app.test_app() as running:
        response = await running.test_client().get(target)
    if location is None:
        assert response.status_code == 400
        assert "location" not in response.headers
    else:
        assert (response.status_code, response.headers["location"]) == (308, location)


@pytest.mark.parametrize(
    ("to", "query", "location"),
    [
        ("/new", b"", "/new"),
        ("/new", b"a=1&a=2&b=%20+%E2%80%AE&&c", "/new?a=1&a=2&b=%20+%E2%80%AE&&c"),
        ("/new?v=2", b"a=1", "/new?v=2&a=1"),
        ("https://new.test", b"a=//evil.test/?", "https://new.test/?a=//evil.test/?"),
        ("/new", b"a=%0d%0aset-cookie:x", "/new?a=%0d%0aset-cookie:x"),
    ],
)
async def test_a_redirect_with_query_keep_adds_the_query_unchanged(to: str, query: bytes, location: str) -> None:
    request = MemoryRequest(target="/r" + (f"?{query.decode()}" if query else ""))
    await asked([{"path": "/r", "redirect": {"to": to, "query": "keep"}}], request)
    assert (request.answer.status, request.answer["location"]) == (308, location)


@given(st.binary(max_size=100))
def test_no_kept_query_leaves_the_query_of_the_location(query: bytes) -> None:
    template = TEMPLATE._replace(keeps_query=True)
    location = template.location({"path": {"a": "a", "b": "b"}, "query": {"q": None}}, query).decode("ascii")
    assert location.isprintable()
    assert " " not in location
    parts = urlsplit(urljoin("https://here.test/old/a/b", location))
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == ("https", "here.test", "/a/b", "")


async def test_a_location_of_more_than_the_largest_target_is_a_400() -> None:
    request = MemoryRequest(target=f"/old/{'%C3%A9' * 1300}/{'%C3%A9' * 1300}?q={'x' * 1000}")
    await asked([MOVED], request)
    assert request.answer.status == 400
    assert "more than 16384 bytes" in request.answer.json["detail"]


async def test_a_redirect_that_reads_a_credential_is_private_and_varies_with_it() -> None:
    request = MemoryRequest(target="/r", fields=[("cookie", "tenant=7")])
    await asked([{"path": "/r", "redirect": {"to": "/new{?c}", "status": 302}, "query": ["c"]}], request)
    assert (request.answer.all("vary"), request.answer.all("cache-control")) == ([], [])
    request = MemoryRequest(target="/r", fields=[("cookie", "tenant=7")])
    await asked([{"path": "/r", "redirect": {"to": "/t/{headers.cookie}", "status": 302}}], request)
    assert (request.answer["vary"], request.answer["cache-control"]) == ("Cookie", "private")
    assert request.answer["location"] == "/t/tenant%3D7"


async def test_a_static_response_is_the_same_for_every_request() -> None:
    cookie, head = MemoryRequest(target="/hello?x=1", fields=[("cookie", "a=b")]), MemoryRequest("HEAD", "/hello")
    await asked([HELLO], cookie, head)
    assert (cookie.answer.status, cookie.answer.json) == (200, {"hello": "world"})
    assert (head.answer.status, head.answer.body) == (200, b"")
    for name in ("vary", "cache-control", "server-timing", "umbel-completed", "set-cookie"):
        assert cookie.answer.all(name) == []
    assert head.answer["content-length"] == cookie.answer["content-length"] == "17"
    same, other = (
        MemoryRequest(target="/hello", fields=[("if-none-match", tag)]) for tag in (head.answer["etag"], '"x"')
    )
    await asked([HELLO], same, other)
    assert (same.answer.status, same.answer.body, same.answer.all("content-type")) == (304, b"", [])
    assert (same.answer["etag"], other.answer.status) == (head.answer["etag"], 200)


async def test_a_static_response_is_compressed_unless_the_route_forbids_it() -> None:
    app, _ = gateway(
        {"path": "/large", "respond": {"text": "x" * 5000}},
        {"path": "/secret", "respond": {"text": "x" * 5000}, "compress": False},
        sections={"compress": {"algorithms": ["gzip"]}},
    )
    accepts = [("accept-encoding", "gzip")]
    async with living(app):
        large, secret = (MemoryRequest(target=target, fields=accepts) for target in ("/large", "/secret"))
        for request in (large, secret):
            await request.served_by(app)
        same = MemoryRequest(target="/large", fields=[*accepts, ("if-none-match", large.answer["etag"])])
        await same.served_by(app)
    assert (large.answer["content-encoding"], gzip.decompress(large.answer.body)) == ("gzip", b"x" * 5000)
    assert (secret.answer.body, secret.answer.all("vary")) == (b"x" * 5000, [])
    assert (same.answer.status, same.answer["etag"]) == (304, large.answer["etag"])


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_unsafe_method_is_never_answered_with_304(method: str) -> None:
    request = MemoryRequest(method, "/hello", fields=[("if-none-match", "*")])
    await asked([{**HELLO, "methods": ["POST", "DELETE"]}], request)
    assert request.answer.status == 200


async def test_an_answer_without_etag_and_with_a_caching_rule_keeps_both() -> None:
    request = MemoryRequest(target="/hello", fields=[("if-none-match", "*")])
    await asked([{**HELLO, "answer": {"etag": False, "cache_control": "public, max-age=60"}}], request)
    assert (request.answer.status, request.answer["cache-control"]) == (200, "public, max-age=60")
    assert request.answer.all("etag") == []


async def test_a_delay_ends_at_the_leaving_of_the_client_and_at_a_cancel(autojump_clock: MockClock) -> None:
    app, records = gateway({"path": "/slow", "respond": {"text": "x", "delay": "3s"}})
    async with living(app):
        start, whole = trio.current_time(), MemoryRequest(target="/slow")
        await whole.served_by(app)
        assert (trio.current_time() - start, whole.answer.body) == (3, b"x")
        left = MemoryRequest(target="/slow")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.served_by, app)
            await trio.sleep(1)
            left.leave()
        assert trio.current_time() - start == 4
        with trio.move_on_after(1) as scope:
            await MemoryRequest(target="/slow").served_by(app)
        assert scope.cancelled_caught
    assert [record.kind for record in records.requests[:2]] == [None, Kind.CLIENT_GONE]
    assert len(records.requests) == 3
    assert app.statistics().requests_in_flight == 0


async def test_a_route_without_calls_gives_its_answer_as_one_line_of_a_stream() -> None:
    request = MemoryRequest(target="/alone/7", fields=[("accept", "application/x-ndjson")])
    await asked([{"path": "/alone/<int:n>", "answer": {"shape": "path.n"}}], request)
    assert request.answer.status == 200
    assert request.answer.body == b'{"end":true,"completed":true,"answer":7}\n'


async def test_a_shape_without_calls_that_exceeds_its_steps_is_a_400() -> None:
    shape = {"path": "/alone", "methods": ["POST"], "answer": {"shape": "body.list[*].{a: @}"}, "max_steps": 10}
    body = b'{"list": [1, 2, 3, 4, 5, 6, 7, 8, 9]}'
    request = MemoryRequest("POST", "/alone", fields=[("content-type", "application/json")], parts=[body])
    await asked([shape], request)
    assert request.answer.status == 400
    assert "list" in request.answer.json["detail"]


@pytest.mark.parametrize(
    ("headers", "request_ids"), [({}, 1), ({"remove": ["x-request-id"]}, 0), ({"set": {"x-request-id": "fixed"}}, 1)]
)
async def test_the_fields_of_a_static_response_are_those_of_its_client_and_request(
    headers: dict[str, Any], request_ids: int
) -> None:
    app, _ = gateway(HELLO, sections={"cors": {"origins": ["https://*.app.test"]}, "headers": headers})
    seen = set()
    async with app.test_app() as running:
        for origin in ("https://a.app.test", "https://b.app.test", "https://a.app.test", "https://evil.example", ""):
            sent = {"origin": origin} if origin else {}
            response = await running.test_client().get("/hello", headers=sent)
            direct = MemoryRequest(target="/hello", fields=[*sent.items()])
            await app.handle(direct)
            for answer in (response.headers.getlist, direct.answer.all):
                assert answer("access-control-allow-origin") == ([origin] if origin.endswith(".app.test") else [])
                assert answer("vary") == ["Origin"]
                assert len(answer("x-request-id")) == request_ids
                seen |= {*answer("x-request-id")}
    assert len(seen) == (10 if not headers else request_ids)
