"""What upstreams, views and shared caches see of identified clients and their credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quart import Response, request

from tests.support.auth.guarded import OTHER, PARTNER, bearer, sections, token
from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel import auth

pytestmark = pytest.mark.usefixtures("way")


async def test_an_identity_reaches_the_requests_of_calls(files: Path) -> None:
    up = Function(says(1))
    call = {
        "upstream": "up",
        "path": "/of/{auth.sub}",
        "headers": {"x-tenant": "{auth.claims.tenant}", "x-kind": "{auth.kind}"},
        "params": {"scope": "join(',', auth.scopes)"},
    }
    app, _ = gateway({"path": "/r", "auth": ["users"], "calls": {"c": call}}, sections=sections(files), up=up)
    async with living(app):
        await ask(app, target="/r", headers=[bearer(token(tenant="t 1", scope="a b", sub="a/b"))])
    assert up.target == b"/of/a%2Fb?scope=a%2Cb"
    assert (up.asked[-1].headers["x-tenant"], up.asked[-1].headers["x-kind"]) == ("t 1", "jwt")
    assert "authorization" not in up.asked[-1].headers


@pytest.mark.parametrize("forwarded", [["*"], ["x-tenant", "x-other"]])
async def test_a_field_whose_claim_is_missing_is_never_that_of_the_client(forwarded: list[str], files: Path) -> None:
    up = Function(says(1))
    call = {
        "upstream": "up",
        "path": "/",
        "headers": {"x-tenant": "{auth.claims.tenant}"},
        "forward_headers": forwarded,
    }
    app, _ = gateway(
        {"path": "/r", "auth": ["users"], "calls": {"c": call}},
        sections=sections(files),
        server={"underscore_headers": "keep"},
        up=up,
    )
    async with living(app):
        claims = [("x-tenant", "forged"), ("x_tenant", "forged"), ("x-other", "1")]
        assert (await ask(app, target="/r", headers=[bearer(token()), *claims])).status == 200
        assert {"x-tenant", "x_tenant"}.isdisjoint(up.asked[-1].headers)
        assert up.asked[-1].headers["x-other"] == "1"
        await ask(app, target="/r", headers=[bearer(token(tenant="a")), *claims])
        assert up.asked[-1].headers["x-tenant"] == "a"


@pytest.mark.parametrize("forwarded", [["*"], ["user", "b"]])
async def test_a_cookie_whose_claim_is_missing_is_never_that_of_the_client(forwarded: list[str], files: Path) -> None:
    up = Function(says(1))
    headers = {"cookie": "user={auth.claims.tenant}; role=a"}
    call = {"upstream": "up", "path": "/", "headers": headers, "forward_cookies": forwarded}
    app, _ = gateway({"path": "/r", "auth": ["users"], "calls": {"c": call}}, sections=sections(files), up=up)
    async with living(app):
        fields = [("cookie", "user=forged; b=2; role=forged")]
        assert (await ask(app, target="/r", headers=[bearer(token()), *fields])).status == 200
        assert up.asked[-1].headers["cookie"] == "b=2"
        await ask(app, target="/r", headers=[bearer(token(tenant="t")), *fields])
        assert up.asked[-1].headers["cookie"] == "user=t; role=a; b=2"


async def test_the_answer_to_an_identified_client_may_be_shared_only_if_the_route_says_so(files: Path) -> None:
    shared = says(1, headers={"cache-control": "public, max-age=60", "cdn-cache-control": "max-age=9"})
    app, _ = gateway(
        route("/parts", auth=["users"], answer={"headers": {"surrogate-control": "max-age=9"}}),
        route("/set", auth=["users"], answer={"cache_control": "public, max-age=5"}),
        route("/age", auth=["users"], answer={"cache_control": "max-age=5"}),
        {"path": "/static", "auth": ["users"], "respond": {"text": "x", "headers": {"cdn-cache-control": "max-age=9"}}},
        {"path": "/proxy", "auth": ["users"], "proxy": {"upstream": "up"}},
        {
            "path": "/proxy-set",
            "auth": ["users"],
            "proxy": {"upstream": "up", "response_headers": {"set": {"cache-control": "public, max-age=5"}}},
        },
        sections=sections(files),
        up=shared,
    )
    async with living(app):
        for target, expected in (
            ("/parts", "private, max-age=60"),
            ("/set", "public, max-age=5"),
            ("/age", "private, max-age=5"),
            ("/static", "private"),
            ("/proxy", "private, max-age=60"),
            ("/proxy-set", "public, max-age=5"),
        ):
            answer = await ask(app, target=target, headers=[bearer(token())])
            assert answer["cache-control"] == expected
            assert "authorization" in ", ".join(answer.all("vary")).lower()
            assert not answer.all("cdn-cache-control") or target == "/proxy-set"
            assert not answer.all("surrogate-control")


async def test_an_answer_of_code_may_be_shared_only_if_it_names_an_age_for_shared_caches(files: Path) -> None:
    app, _ = gateway(sections=sections(files))
    said = {"value": ""}

    @app.route("/view")
    @app.requires("users", "partners")
    async def view() -> Any:
        return "x", 200, {"cache-control": said["value"], "vary": "Accept", "cdn-cache-control": "max-age=9"}

    @app.compose("/handler", auth=["users", "partners"])
    async def handler(compose: Any) -> Any:
        return "x", 200, {"cache-control": said["value"], "cdn-cache-control": "max-age=9"}

    @app.compose("/response", auth=["users", "partners"])
    async def response(compose: Any) -> Any:
        headers = {"cache-control": said["value"], "vary": "Accept", "x-accel-expires": "9"}
        return Response("x", headers=headers)

    async with living(app):
        for value, expected in (
            ("max-age=60", "private, max-age=60"),
            ("public, max-age=43200", "private, max-age=43200"),
            ("no-store", "no-store"),
            ("private, max-age=1", "private, max-age=1"),
            ("public, s-maxage=60", "public, s-maxage=60"),
        ):
            said["value"] = value
            for target in ("/view", "/handler", "/response"):
                answer = await ask(app, target=target, headers=[bearer(token())])
                assert answer["cache-control"] == expected, target
                assert answer["vary"] == "Accept, Authorization, X-Api-Key", target
                targeted = answer.all("cdn-cache-control") + answer.all("x-accel-expires")
                assert bool(targeted) == ("s-maxage" in value), target


async def test_a_token_in_the_query_is_cut_from_what_is_forwarded(files: Path) -> None:
    up = Function(says(1))
    call = {"upstream": "up", "path": "/", "forward_query": ["*"]}
    named = {"upstream": "up", "path": "/", "forward_query": ["t", "a"]}
    app, _ = gateway(
        {"path": "/star", "auth": ["users"], "calls": {"c": call}},
        {"path": "/named", "auth": ["users"], "calls": {"c": named}},
        {"path": "/proxy", "auth": ["users"], "proxy": {"upstream": "up"}},
        {"path": "/redirect", "auth": ["users"], "redirect": {"to": "/x", "query": "keep"}},
        sections=sections(files, **{"from": ["query:t"]}),
        up=up,
    )
    secret = token()
    async with living(app):
        for target, expected in (("/star", b"/?a=1&b="), ("/named", b"/?a=1"), ("/proxy", b"/proxy?a=1&b=")):
            answer = await ask(app, target=f"{target}?a=1&%74={secret}&b=")
            assert (answer.status, up.target) == (200, expected)
        moved = await ask(app, target=f"/redirect?t={secret}&a=1")
    assert moved["location"] == "/x?a=1"


async def test_a_token_in_the_query_is_hidden_on_every_route_and_from_views(files: Path) -> None:
    up = Function(says(1))
    star = {"upstream": "up", "path": "/", "forward_query": ["*"]}
    app, _ = gateway(
        {"path": "/star", "auth": ["none"], "calls": {"c": star}},
        {"path": "/proxy", "auth": ["partners"], "proxy": {"upstream": "up"}},
        sections=sections(files, **{"from": ["query:t"]}),
        up=up,
    )

    @app.route("/view")
    @app.requires("users")
    async def view() -> Any:
        return {"args": request.args.to_dict(), "url": request.url, "sub": auth.current().sub}

    @app.compose("/handler", auth="users")
    async def handler(compose: Any) -> Any:
        return {"args": request.args.to_dict(), "url": request.url, "sub": auth.current().sub}

    secret = token()
    async with living(app):
        await ask(app, target=f"/star?a=1&t={secret}")
        assert up.target == b"/?a=1"
        await ask(app, target=f"/proxy?t={secret}&a=1", headers=[("x-api-key", PARTNER)])
        assert up.target == b"/proxy?a=1"
        for target in ("/view", "/handler"):
            answer = await ask(app, target=f"{target}?t={secret}&a=1")
            assert answer.json == {"args": {"a": "1"}, "url": f"http://gateway.test{target}?a=1", "sub": "ada"}


async def test_a_token_for_the_gateway_reaches_no_upstream_whatever_let_the_request_in(files: Path) -> None:
    up = Function(says(1))
    proxies = [
        {"path": "/proxy", "auth": ["partners", "users"], "proxy": {"upstream": "up"}},
        {"path": "/pass", "auth": ["partners", "users"], "proxy": {"upstream": "up", "forward_credentials": True}},
    ]
    app, _ = gateway(*proxies, sections=sections(files), up=up)
    async with living(app):
        for target, passed in (("/proxy", False), ("/pass", True)):
            await ask(app, target=target, headers=[("x-api-key", PARTNER), bearer(token(OTHER))])
            assert ("authorization" in up.asked[-1].headers) == passed


async def test_upstreams_get_no_credential_unless_it_is_named(files: Path) -> None:
    up = Function(says(1))
    star = {"upstream": "up", "path": "/", "forward_headers": ["*"], "forward_cookies": ["*"]}
    fields = [("cookie", "a=1; session=secret; b=2"), ("x-other", "1"), ("x_api_key", "k")]
    by_both = sections(files, **{"from": ["header", "cookie:session"]})
    app, _ = gateway(
        {"path": "/star", "auth": ["users", "partners"], "calls": {"c": star}},
        {"path": "/proxy", "auth": ["users", "partners"], "proxy": {"upstream": "up"}},
        {"path": "/pass", "auth": ["users"], "proxy": {"upstream": "up", "forward_credentials": True}},
        {"path": "/public", "auth": ["none"], "proxy": {"upstream": "up"}},
        sections=by_both,
        server={"underscore_headers": "keep"},
        up=up,
    )
    async with living(app):
        for target in ("/star", "/proxy", "/pass", "/public"):
            headers = [bearer(token()), ("x-api-key", PARTNER), ("x-forwarded-client-cert", "Hash=1"), *fields]
            assert (await ask(app, target=target, headers=headers)).status == 200
            got = up.asked[-1].headers
            assert got["cookie"] == "a=1; b=2"
            assert got["x-other"] == "1"
            assert {"x-api-key", "x_api_key", "x-forwarded-client-cert"}.isdisjoint(got)
            assert ("authorization" in got) == (target in ("/pass", "/public"))
        # It is the key that lets this request in, so Authorization is for the upstream.
        await ask(app, target="/proxy", headers=[("authorization", "Basic YTpi"), ("x-api-key", PARTNER)])
        assert up.asked[-1].headers["authorization"] == "Basic YTpi"
