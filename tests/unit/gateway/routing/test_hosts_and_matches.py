"""Routes by host and by ``match``: before Quart and through Quart, with hostile hosts, fields and queries."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from tests.support.server.asgi import Answer, ask, living
from tests.unit.gateway.gateways import Function, gateway, says
from umbel.gateway.app import Umbel


def at(name: str, **keys: Any) -> dict[str, Any]:
    """A route whose answer is ``name``."""
    calls = {"part": {"upstream": "up", "path": "/"}}
    return {"path": "/r", "calls": calls, "answer": {"shape": f"'{name}'"}, **keys}


@pytest.fixture(params=["before Quart", "through Quart"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(way: str, *routes: dict[str, Any], **server: Any) -> Umbel:
    app, _ = gateway(*routes, server=server, up=Function(says(1)))
    if way == "through Quart":

        async def nothing() -> None:
            """A hook that changes nothing."""

        app.before_request(nothing)
    return app


async def to(app: Umbel, host: str, target: str = "/r", *fields: tuple[str, str], method: str = "GET") -> Answer:
    return await ask(app, method, target, headers=[("host", host), *fields])


HOSTS = (
    at("exact", host="a.shop.example"),
    at("port", host="a.shop.example:8000"),
    at("wild", host="*.shop.example"),
    at("any"),
    at("other", path="/only", host="Other.example"),
    at("variable", path="/v/<x>", host="a.shop.example"),
    at("literal", path="/v/me"),
    at("address", host="[2001:DB8:0::1]:080"),
    at("posted", path="/m", host="a.shop.example", methods=["POST"]),
    at("got", path="/m"),
    at("slash", path="/s/", host="a.shop.example"),
)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("a.shop.example", "exact"),
        ("A.Shop.EXAMPLE", "exact"),
        ("a.shop.example.", "exact"),
        ("a.shop.example:80", "exact"),
        ("a.shop.example:8000", "port"),
        ("b.shop.example", "wild"),
        ("b.shop.example.:8000", "wild"),
        ("shop.example", "any"),
        ("a.b.shop.example", "any"),
        ("xshop.example", "any"),
        ("shop.example.evil.test", "any"),
        ("[::1]", "any"),
        ("10.0.0.1:80", "any"),
        ("xn--bcher-kva.shop.example", "wild"),
    ],
)
async def test_the_route_of_the_nearest_host_answers(host: str, said: str, way: str, autojump_clock: MockClock) -> None:
    app = serve(way, *HOSTS)
    async with living(app):
        assert app.statistics().routes_before_quart is (way == "before Quart")
        for _ in range(2):  # The second answer is by the cached match.
            assert (await to(app, host)).json == said


async def test_the_host_is_compared_before_the_path_and_the_method_decides_last(
    way: str, autojump_clock: MockClock
) -> None:
    app = serve(way, *HOSTS)
    async with living(app):
        assert (await to(app, "a.shop.example", "/v/me")).json == "variable"
        assert (await to(app, "b.shop.example", "/v/me")).json == "literal"
        assert (await to(app, "other.example", "/only")).json == "other"
        assert (await to(app, "a.shop.example", "/only")).status == 404
        assert (await to(app, "a.shop.example", "/m")).json == "got"
        assert (await to(app, "a.shop.example", "/m", method="POST")).json == "posted"
        refused = await to(app, "a.shop.example", "/m", method="PUT")
        assert (refused.status, refused["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        assert (await to(app, "b.shop.example", "/m", method="POST"))["allow"] == "GET, HEAD, OPTIONS"
        assert (await to(app, "a.shop.example", "/m", method="OPTIONS"))["allow"] == "GET, HEAD, OPTIONS, POST"
        redirected = await to(app, "a.shop.example", "/s")
        assert (redirected.status, redirected["location"]) == (308, "/s/")
        assert (await to(app, "b.shop.example", "/s")).status == 404


@pytest.mark.parametrize(
    "host", ["a.shop.example/x", "a.shop.example@evil", "a b", "a.shop.exämple", "%61.shop.example", ""]
)
async def test_an_odd_host_gets_no_route_of_another_host(host: str, way: str, autojump_clock: MockClock) -> None:
    app = serve(way, *HOSTS)
    async with living(app):
        answer = await to(app, host)
        assert answer.status == 400 or answer.json == "any"


@pytest.mark.parametrize(
    ("target", "host", "said"),
    [
        ("http://a.shop.example/r", "a.shop.example", "exact"),
        ("HTTP://A.Shop.Example:80/r", "a.shop.example", "exact"),
        ("http://a.shop.example/r", "other.example", 400),
        ("http://other.example/r", "a.shop.example", 400),
        ("http://a.shop.example:8000/r", "a.shop.example", 400),
        ("http://x@a.shop.example/r", "a.shop.example", 400),
        ("http:///r", "a.shop.example", 400),
    ],
)
async def test_an_absolute_target_must_name_the_host_of_the_host_field(
    target: str, host: str, said: str | int, way: str, autojump_clock: MockClock
) -> None:
    app = serve(way, *HOSTS)
    async with living(app):
        answer = await to(app, host, target)
        assert (answer.json if answer.status == 200 else answer.status) == said


async def test_only_a_trusted_proxy_may_report_another_host(way: str, autojump_clock: MockClock) -> None:
    claims = [("x-forwarded-host", "a.shop.example"), ("x-forwarded-for", "203.0.113.7")]
    forwarded = [("forwarded", 'for=203.0.113.7;host="a.shop.example"')]
    app = serve(way, *HOSTS)
    async with living(app):
        for fields in (claims, forwarded):
            answer = await to(app, "front.test", "/r", *fields)
            assert answer.json == "any"
            assert answer["vary"] == "Accept"
    app = serve(way, *HOSTS, trusted_proxies=["127.0.0.1"])
    async with living(app):
        for fields in (claims, forwarded):
            answer = await to(app, "front.test", "/r", *fields)
            assert answer.json == "exact"
            # A shared cache in front must not give this answer for another X-Forwarded-Host.
            assert {"X-Forwarded-Host", "Forwarded"} <= set(answer["vary"].split(", "))
        # It would get the routes of the proxy's own name.
        odd = [("x-forwarded-host", "a.shop.example/evil"), claims[1]]
        assert (await to(app, "front.test", "/r", *odd)).status == 400


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("a_b.shop.example", "wild"),
        ("A_B.shop.example.:08000", "wild"),
        ("a~b.shop.example", "wild"),
        ("a.shop.example:0", "exact"),
        ("a.shop.example:080", "exact"),
        ("a.shop.example:08000", "port"),
        ("[2001:db8::1]:80", "address"),
        ("[2001:0DB8:0:0:0:0:0:1]:80", "address"),
        ("[2001:db8::1]:81", "any"),
        ("a.shop.example..", 400),
        (".shop.example", 400),
        ("a..shop.example", 400),
        ("a.shop.example:65536", 400),
        ("[1.2]", 400),
    ],
)
@pytest.mark.parametrize("reported", [False, True], ids=["in Host", "by a trusted proxy"])
async def test_a_host_of_any_valid_form_gets_its_route_and_a_malformed_one_gets_none(
    host: str, said: str | int, reported: bool, way: str, autojump_clock: MockClock
) -> None:
    app = serve(way, *HOSTS, trusted_proxies=["127.0.0.1"] if reported else [])
    sent = ("front.test", "/r", ("x-forwarded-host", host)) if reported else (host,)
    async with living(app):
        answer = await to(app, *sent)
        assert (answer.json if answer.status == 200 else answer.status) == said
        preflight = [("origin", "https://x.example"), ("access-control-request-method", "GET")]
        asked = await to(app, *sent[:1], "/r", *sent[2:], *preflight, method="OPTIONS")  # type: ignore[arg-type]
        assert (asked.status == 400) is (said == 400)


async def test_a_slash_redirect_varies_by_the_host_that_a_proxy_reports(way: str, autojump_clock: MockClock) -> None:
    routes = at("file", path="/s/<x>", host="one.example"), at("folder", path="/s/<x>/", host="two.example")
    fields = ("x-forwarded-host", "two.example")
    app = serve(way, *routes, trusted_proxies=["127.0.0.1"])
    async with living(app):
        moved = await to(app, "front.test", "/s/1", fields)
        assert (moved.status, moved["location"]) == (308, "/s/1/")
        assert moved["vary"] == "X-Forwarded-Host, Forwarded"
        kept = await to(app, "one.example", "/s/1")
        assert kept.json == "file"
        assert {"X-Forwarded-Host", "Forwarded"} <= set(kept["vary"].split(", "))
    app = serve(way, *routes)
    async with living(app):
        moved = await to(app, "two.example", "/s/1")
        assert (moved.status, "vary" in dict(moved.headers)) == (308, False)


async def test_views_and_handlers_of_the_application_may_have_a_host_too(autojump_clock: MockClock) -> None:
    app, _ = gateway(at("any"), up=Function(says(1)))

    @app.compose("/r", host="api.example")
    async def composed(compose: Any) -> str:
        return "composed"

    @app.get("/plain", host="api.example")
    async def plain() -> str:
        return "plain"

    async with living(app):
        assert (await to(app, "api.example")).json == "composed"
        assert (await to(app, "www.example")).json == "any"
        assert (await to(app, "api.example", "/plain")).body == b"plain"
        assert (await to(app, "www.example", "/plain")).status == 404


MATCHES = (
    at("default"),
    at("beta", match="headers.x_beta == 'on'"),
    at("second", match="headers.x_beta && query.v == '2'"),
    at("v2", match="query.v == '2'"),
)


@pytest.mark.parametrize(
    ("query", "beta", "said"),
    [
        ("", None, "default"),
        ("", "on", "beta"),
        ("?v=2", "on", "beta"),
        ("?v=2", "off", "second"),
        ("?v=2", None, "v2"),
        ("?v=1&v=2", None, "v2"),
        ("?v=2&v=1", None, "default"),
        ("?%76=%32", None, "v2"),
        ("?v=%ff", None, "default"),
        ("?v=%ff&v=2", None, "v2"),
        ("?v", None, "default"),
        ("", "\xff", "default"),
        ("", "on, on", "default"),
    ],
)
async def test_the_first_route_that_matches_answers_and_one_without_match_is_the_last(
    query: str, beta: str | None, said: str, way: str, autojump_clock: MockClock
) -> None:
    app = serve(way, *MATCHES)
    async with living(app):
        fields = [] if beta is None else [("x-beta", beta)]
        answer = await to(app, "h", f"/r{query}", *fields)
        assert answer.json == said
        assert answer["vary"] == "Accept, X-Beta"
        assert (await to(app, "h", f"/r{query}", *fields, method="HEAD")).status == 200


async def test_without_a_matching_route_the_answer_is_404_without_a_call(way: str, autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, records = gateway(at("get", match="headers.x_a"), at("post", match="query.p", methods=["POST"]), up=upstream)
    async with living(app):
        for method, target in (("GET", "/r"), ("GET", "/r?p=1"), ("POST", "/r")):
            answer = await to(app, "h", target, method=method)
            assert (answer.status, answer["cache-control"]) == (404, "no-store")
        assert not upstream.asked
        assert (await to(app, "h", "/r?p=1", method="POST")).json == "post"
        assert (await to(app, "h", "/r", ("x-a", "1"))).json == "get"
        assert (await to(app, "h", "/r", method="PUT")).status == 405
    assert [record.request.route for record in records.requests] == ["/r"] * 5 + [""]


async def test_a_match_that_exceeds_its_bound_does_not_match(way: str, autojump_clock: MockClock) -> None:
    costly = "join('', map(&join(headers.x_a, [@, @, @]), [headers.x_a, headers.x_a])) == 'x'"
    app = serve(way, at("costly", match=costly, max_steps=3), at("default"))
    async with living(app):
        assert (await to(app, "h", "/r", ("x-a", "y" * 200))).json == "default"


async def test_a_match_on_a_credential_makes_the_answer_private(way: str, autojump_clock: MockClock) -> None:
    app = serve(way, at("mine", match="headers.authorization"), at("default"))
    async with living(app):
        for fields in ([("authorization", "Bearer x")], []):
            answer = await to(app, "h", "/r", *fields)
            assert "private" in answer["cache-control"]
            assert "Authorization" in answer["vary"]


async def test_static_routes_are_chosen_by_host_and_match_too(way: str, autojump_clock: MockClock) -> None:
    static = {"path": "/r", "host": "old.example", "redirect": {"to": "/new"}, "match": "!(headers.x_keep)"}
    app = serve(way, static, at("kept", host="old.example"), at("any"))
    async with living(app):
        moved = await to(app, "old.example")
        assert (moved.status, moved["location"]) == (308, "/new")
        assert "X-Keep" in moved["vary"]
        assert (await to(app, "old.example", "/r", ("x-keep", "1"))).json == "kept"
        assert (await to(app, "new.example")).json == "any"
