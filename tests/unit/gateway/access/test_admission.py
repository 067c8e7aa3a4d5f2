"""Admission of requests: who gets in, on every kind of route, before Quart and through it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Response, request, websocket

from tests.support.auth.tokens import encoded, jwk, jwks, private_key, sign
from tests.support.logs.records import Records
from tests.support.server.asgi import Answer, ask, living
from tests.support.server.asgi_websocket import converse
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel import auth
from umbel.core.failure_kinds import Kind
from umbel.core.identity import AuthResult
from umbel.gateway.app import Umbel

KEY, OTHER = private_key("ES256"), private_key("ES256", 1)
ISSUER = "https://id.example/"
PARTNER = "uk_partner"
APP = "https://app.example"
KINDS = ("composed", "shape", "respond", "redirect", "proxy", "handler", "required handler", "view")
"""The kinds of routes, each with a route at this path: the kind with a hyphen for the space."""


@pytest.fixture(autouse=True)
def _ways(way: str) -> None:
    """Run each test in the three ways to answer a request."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the keys of the issuer, and the file of the partner's key."""
    (tmp_path / "jwks.json").write_bytes(jwks(jwk(KEY, kid="1", alg="ES256")))
    digest = hashlib.sha256(PARTNER.encode()).hexdigest()
    (tmp_path / "keys.toml").write_text(f'[[keys]]\nid = "acme"\nsha256 = "{digest}"\nscopes = ["orders:read"]\n')
    for file in tmp_path.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return tmp_path


def sections(files: Path, **users: Any) -> dict[str, Any]:
    issuer = {"iss": ISSUER, "keys": str(files / "jwks.json"), "audience": ["shop"]}
    return {
        "auth": {
            "users": {"kind": "jwt", "algorithms": ["ES256"], "issuers": [issuer], **users},
            "partners": {"kind": "api-key", "file": str(files / "keys.toml")},
        }
    }


def token(key: Any = KEY, **claims: Any) -> str:
    now = time.time()
    usual = {"iss": ISSUER, "aud": "shop", "sub": "ada", "exp": now + 300, "iat": now}
    return sign(key, "ES256", {**usual, **claims}, header={"kid": "1"})


def bearer(value: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {value}")


def every_kind(files: Path, **access: Any) -> tuple[Umbel, Records, Function]:
    """An application with a route of each kind that has this access."""
    up = Function(says({"from": "up"}))
    app, records = gateway(
        route("/composed", auth=["users"], **access),
        {"path": "/shape", "auth": ["users"], "answer": {"shape": "{sub: auth.sub}"}, **access},
        {"path": "/respond", "auth": ["users"], "respond": {"text": "secret"}, **access},
        {"path": "/redirect", "auth": ["users"], "redirect": {"to": "/elsewhere"}, **access},
        {"path": "/proxy", "auth": ["users"], "proxy": {"upstream": "up"}, **access},
        sections=sections(files),
        up=up,
    )
    scopes = access.get("scopes", ())

    @app.compose("/handler", auth="users", scopes=scopes)
    async def handler(compose: Any) -> Any:
        return {"sub": auth.current().sub}

    @app.compose("/required-handler")
    @app.requires("users", scopes=scopes)
    async def required_handler(compose: Any) -> Any:
        return {"sub": auth.current().sub}

    @app.route("/view")
    @app.requires("users", scopes=scopes)
    async def view() -> Any:
        return {"sub": auth.current().sub}

    return app, records, up


def check_refused(answer: Answer, status: int, problem: str) -> None:
    assert (answer.status, answer.json["type"]) == (status, f"urn:umbel:problem:{problem}"), answer
    assert answer["cache-control"] == "no-store"
    assert answer["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_without_credentials_gets_401_and_starts_nothing(kind: str, files: Path) -> None:
    app, records, up = every_kind(files)
    async with living(app):
        answer = await ask(app, target=f"/{kind.replace(' ', '-')}")
    check_refused(answer, 401, "unauthorized")
    assert answer["www-authenticate"] == 'Bearer realm="users"'
    assert not up.asked
    (record,) = records.requests
    assert (record.status, record.kind, record.auth) == (401, Kind.UNAUTHORIZED, AuthResult("missing"))
    assert record.of_client
    assert record.request.route == f"/{kind.replace(' ', '-')}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_with_a_valid_token_is_answered_and_the_answer_is_private(kind: str, files: Path) -> None:
    app, records, _ = every_kind(files)
    async with living(app):
        answer = await ask(app, target=f"/{kind.replace(' ', '-')}", headers=[bearer(token())])
    assert answer.status == (308 if kind == "redirect" else 200)
    assert answer["cache-control"] == "private"
    if kind in ("shape", "handler", "required handler", "view"):
        assert answer.json == {"sub": "ada"}
    (record,) = records.requests
    assert (record.kind, record.auth) == (None, AuthResult("admitted", "jwt", "users"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_of_another_key_gets_401_with_its_reason(kind: str, files: Path) -> None:
    app, records, up = every_kind(files)
    async with living(app):
        answer = await ask(app, target=f"/{kind.replace(' ', '-')}", headers=[bearer(token(OTHER))])
    check_refused(answer, 401, "unauthorized")
    assert answer["www-authenticate"].startswith('Bearer realm="users", error="invalid_token", error_description="')
    assert not up.asked
    (record,) = records.requests
    assert record.auth == AuthResult("invalid", "jwt", "users")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_without_the_scope_gets_403_with_the_scope(kind: str, files: Path) -> None:
    app, records, up = every_kind(files, scopes=["orders:read", "orders:list"])
    target = f"/{kind.replace(' ', '-')}"
    async with living(app):
        refused = await ask(app, target=target, headers=[bearer(token(scope="orders:read"))])
        admitted = await ask(app, target=target, headers=[bearer(token(scope="orders:list orders:read other"))])
    check_refused(refused, 403, "insufficient-scope")
    assert refused["www-authenticate"] == (
        'Bearer realm="users", error="insufficient_scope",'
        ' error_description="The credential lacks a scope that is needed.", scope="orders:read orders:list"'
    )
    assert admitted.status in (200, 308)
    assert len(up.asked) <= 1
    first = records.requests[0]
    assert (first.kind, first.auth) == (Kind.FORBIDDEN, AuthResult("insufficient-scope", "jwt", "users"))


async def test_one_of_several_scopes_is_enough_with_scopes_any(files: Path) -> None:
    app, _ = gateway(route(auth=["users"], scopes_any=["a", "b"]), sections=sections(files), up=says(1))
    async with living(app):
        statuses = [
            (await ask(app, target="/r", headers=[bearer(token(scp=scp))])).status for scp in (["b"], ["c"], [])
        ]
    assert statuses == [200, 403, 403]


async def test_the_first_credential_that_is_valid_admits_a_request(files: Path) -> None:
    key = ("x-api-key", PARTNER)
    app, records = gateway(route(auth=["users", "partners"]), sections=sections(files), up=says(1))
    async with living(app):
        asked = [[key], [bearer(token())], [bearer(token(OTHER)), key], [bearer(token(OTHER)), ("x-api-key", "uk_no")]]
        answers = [await ask(app, target="/r", headers=headers) for headers in asked]
    assert [answer.status for answer in answers] == [200, 200, 200, 401]
    assert [(each.auth and each.auth.name) for each in records.requests] == ["partners", "users", "partners", "users"]
    assert len(answers[3].all("www-authenticate")) == 2


async def test_a_token_of_one_section_never_opens_a_route_of_another(files: Path) -> None:
    both = sections(files)
    both["auth"]["others"] = {
        **both["auth"]["users"],
        "issuers": [{"iss": ISSUER, "keys": str(files / "jwks.json"), "audience": ["admin"]}],
    }
    app, _ = gateway(route("/a", auth=["users"]), route("/b", auth=["others"]), sections=both, up=says(1))
    async with living(app):
        for _ in range(2):  # The second time, the cache of verified tokens is warm.
            statuses = [(await ask(app, target=each, headers=[bearer(token())])).status for each in ("/a", "/b")]
            assert statuses == [200, 401]


async def test_a_condition_that_is_not_fulfilled_gets_403(files: Path) -> None:
    of_tenant = route("/t/<tenant>", auth=["users"], allow="auth.claims.tenant == path.tenant")
    app, records = gateway(of_tenant, sections=sections(files), up=says(1))
    async with living(app):
        mine = [bearer(token(tenant="a"))]
        answers = [await ask(app, target=target, headers=mine) for target in ("/t/a", "/t/b")]
        answers.append(await ask(app, target="/t/None", headers=[bearer(token())]))
    assert [answer.status for answer in answers] == [200, 403, 403]
    check_refused(answers[1], 403, "forbidden")
    assert records.requests[1].auth == AuthResult("not-allowed", "jwt", "users")


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


async def test_a_body_is_not_received_before_admission(files: Path) -> None:
    app, _ = gateway(
        {
            "path": "/r",
            "auth": ["users"],
            "methods": ["POST"],
            "calls": {"c": {"upstream": "up", "path": "/", "method": "POST", "forward_body": True}},
        },
        sections=sections(files),
        up=says(1),
    )
    async with living(app):
        answer = await ask(app, "POST", "/r", body=b"no json", headers=[("content-type", "text/plain")])
    assert answer.status == 401  # And not 415 or 400.


async def test_a_refusal_has_the_fields_of_cors_and_a_preflight_needs_no_credential(files: Path) -> None:
    cors = {"cors": {"origins": [APP], "credentials": True}}
    app, _ = gateway(route(auth=["users"], scopes=["a"]), sections={**sections(files), **cors}, up=says(1))
    origin = ("origin", APP)
    async with living(app):
        refused = await ask(app, target="/r", headers=[origin])
        forbidden = await ask(app, target="/r", headers=[origin, bearer(token())])
        asks = [origin, ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")]
        preflight = await ask(app, "OPTIONS", "/r", headers=asks)
    assert (refused.status, forbidden.status, preflight.status) == (401, 403, 204)
    assert refused["access-control-allow-origin"] == forbidden["access-control-allow-origin"] == APP


async def test_the_answer_to_an_identified_client_may_be_shared_only_if_the_route_says_so(files: Path) -> None:
    shared = says(1, headers={"cache-control": "public, max-age=60", "cdn-cache-control": "max-age=9"})
    app, _ = gateway(
        route("/parts", auth=["users"]),
        route("/set", auth=["users"], answer={"cache_control": "public, max-age=5"}),
        route("/age", auth=["users"], answer={"cache_control": "max-age=5"}),
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
            ("/proxy", "private, max-age=60"),
            ("/proxy-set", "public, max-age=5"),
        ):
            answer = await ask(app, target=target, headers=[bearer(token())])
            assert answer["cache-control"] == expected
            assert "authorization" in ", ".join(answer.all("vary")).lower()
            assert not answer.all("cdn-cache-control") or target == "/proxy-set"


async def test_an_answer_of_code_may_be_shared_only_if_it_names_an_age_for_shared_caches(files: Path) -> None:
    app, _ = gateway(sections=sections(files))
    said = {"value": ""}

    @app.route("/view")
    @app.requires("users", "partners")
    async def view() -> Any:
        return "x", 200, {"cache-control": said["value"], "vary": "Accept"}

    @app.compose("/handler", auth=["users", "partners"])
    async def handler(compose: Any) -> Any:
        return "x", 200, {"cache-control": said["value"]}

    @app.compose("/response", auth=["users", "partners"])
    async def response(compose: Any) -> Any:
        return Response("x", headers={"cache-control": said["value"], "vary": "Accept"})

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


async def test_code_that_changes_the_claims_changes_nothing_for_other_requests(files: Path) -> None:
    app, _ = gateway(
        {"path": "/r", "auth": ["users"], "answer": {"shape": "auth.claims.roles"}}, sections=sections(files)
    )

    @app.route("/view")
    @app.requires("users")
    async def view() -> Any:
        roles: Any = auth.current().claims["roles"]
        roles.append("admin")
        return auth.current().claims["roles"]

    same = [bearer(token(roles=[]))]
    async with living(app):
        for _ in range(2):
            assert (await ask(app, target="/view", headers=same)).json == ["admin"]
            assert (await ask(app, target="/r", headers=same)).json == []


def by_cookie(files: Path) -> tuple[Umbel, Records]:
    cors = {"cors": {"origins": [APP, "https://*.wild.example"], "credentials": True}}
    return gateway(
        route(auth=["users"], methods=["GET", "POST"]),
        sections={**sections(files, **{"from": ["cookie:session"]}), **cors},
        up=says(1),
    )


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("GET", [], 200),
        ("POST", [], 403),
        ("POST", [("origin", APP)], 200),
        ("POST", [("origin", "https://a.wild.example")], 200),
        ("POST", [("origin", "http://gateway.test")], 200),
        ("POST", [("origin", "https://gateway.test")], 403),
        ("POST", [("origin", "http://gateway.test:81")], 403),
        ("POST", [("origin", "https://evil.example")], 403),
        ("POST", [("origin", "null")], 403),
        ("POST", [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], 403),
        ("POST", [("origin", APP), ("origin", "https://evil.example")], 403),
        ("POST", [("sec-fetch-site", "same-origin")], 200),
        ("POST", [("sec-fetch-site", "none")], 200),
        ("POST", [("sec-fetch-site", "same-site")], 403),
        ("POST", [("sec-fetch-site", "cross-site")], 403),
    ],
)
async def test_a_token_in_a_cookie_needs_an_allowed_origin_for_unsafe_methods(
    method: str, fields: list[tuple[str, str]], status: int, files: Path
) -> None:
    app, records = by_cookie(files)
    async with living(app):
        answer = await ask(app, method, "/r", headers=[("cookie", f"a=b; session={token()}"), *fields])
    assert answer.status == status
    if status == 403:
        check_refused(answer, 403, "forbidden")
        assert records.requests[0].auth == AuthResult("foreign-origin", "jwt", "users")


async def test_a_get_whose_call_changes_something_needs_an_allowed_origin_with_a_cookie(files: Path) -> None:
    def calls(method: str) -> dict[str, Any]:
        return {"calls": {"c": {"upstream": "up", "path": "/", "method": method}}, "auth": ["users"]}

    app, _ = gateway(
        {"path": "/cancel", **calls("POST")},
        {"path": "/look", **calls("GET")},
        sections=sections(files, **{"from": ["header", "cookie:session"]}),
        up=says(1),
    )
    cookie, foreign = ("cookie", f"session={token()}"), ("sec-fetch-site", "cross-site")
    async with living(app):
        asked = [
            ("/cancel", [cookie, foreign]),
            ("/cancel", [cookie]),
            ("/cancel", [cookie, ("sec-fetch-site", "same-origin")]),
            ("/cancel", [bearer(token())]),
            ("/look", [cookie, foreign]),
        ]
        statuses = [(await ask(app, target=target, headers=headers)).status for target, headers in asked]
    assert statuses == [403, 403, 200, 200, 200]


async def test_a_parameter_that_decides_about_access_may_be_given_once_only(files: Path) -> None:
    allowed = {"auth": ["users"], "query": ["tenant", "x"], "proxy": {"upstream": "up"}}
    app, _ = gateway(
        {"path": "/query", **allowed, "allow": "auth.claims.tenant == query.tenant"},
        {"path": "/cookie", **allowed, "allow": "auth.claims.tenant == cookies.tenant"},
        sections=sections(files),
        up=says(1),
    )
    mine = bearer(token(tenant="a"))
    async with living(app):
        for target, fields, status in (
            ("/query?tenant=a&x=1&x=2", [], 200),
            ("/query?tenant=b&tenant=a", [], 400),
            ("/query?%74enant=b&tenant=a", [], 400),
            ("/cookie", [("cookie", "tenant=a; x=1; x=2")], 200),
            ("/cookie", [("cookie", "tenant=a; tenant=b")], 400),
            ("/cookie", [("cookie", "tenant=a"), ("cookie", "tenant=b")], 400),
        ):
            assert (await ask(app, target=target, headers=[mine, *fields])).status == status, target


async def test_an_origin_of_cors_without_credentials_does_not_admit_a_cookie(files: Path) -> None:
    for cors in ({"origins": ["*"]}, {"origins": [APP]}):
        app, _ = gateway(
            route(auth=["users"], methods=["POST"]),
            sections={**sections(files, **{"from": ["cookie:session"]}), "cors": cors},
            up=says(1),
        )
        async with living(app):
            answer = await ask(app, "POST", "/r", headers=[("cookie", f"session={token()}"), ("origin", APP)])
        assert answer.status == 403


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


async def test_a_websocket_of_a_view_is_admitted_before_it_is_accepted(files: Path) -> None:
    app, records = gateway(sections=sections(files, **{"from": ["header", "cookie:session", "query:t"]}))

    @app.websocket("/ws")
    @app.requires("users")
    async def talk() -> None:
        await websocket.send(str(auth.current().sub))

    async with living(app):
        refused = await converse(app)
        admitted = await converse(app, headers=[(b"host", b"g.test"), (b"authorization", f"Bearer {token()}".encode())])
        by_query = await converse(app, query_string=f"t={token()}".encode())
        cookie = (b"cookie", f"session={token()}".encode())
        foreign = await converse(app, headers=[(b"host", b"g.test"), cookie, (b"origin", b"https://evil.example")])
        own = await converse(app, headers=[(b"host", b"g.test"), cookie, (b"origin", b"http://g.test")])
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    assert dict(refused[0]["headers"])[b"www-authenticate"] == b'Bearer realm="users"'
    assert [each[1]["text"] for each in (admitted, by_query, own)] == ["ada"] * 3
    assert (foreign[0]["type"], foreign[0]["status"]) == ("websocket.http.response.start", 403)
    assert [record.status for record in records.requests] == [401, 101, 101, 403, 101]
    assert records.requests[1].auth == AuthResult("admitted", "jwt", "users")


async def test_requests_at_the_same_time_have_their_own_identities(files: Path) -> None:
    waiting: list[trio.Event] = []
    app, _ = gateway(sections=sections(files))

    @app.compose("/who", auth="users")
    async def who(compose: Any) -> Any:
        waiting.append(trio.Event())
        if len(waiting) == 2:
            for each in waiting:
                each.set()
        await waiting[-1].wait()
        return auth.current().sub

    @app.compose("/open", auth="none")
    async def anybody(compose: Any) -> Any:
        with pytest.raises(Exception, match="no identity"):
            auth.current()
        return "anybody"

    answers: dict[str, Any] = {}

    async def asks(sub: str) -> None:
        answers[sub] = (await ask(app, target="/who", headers=[bearer(token(sub=sub))])).json

    async with living(app):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks, "ada")
            nursery.start_soon(asks, "bob")
        assert (await ask(app, target="/open", headers=[bearer(token())])).json == "anybody"
    assert answers == {"ada": "ada", "bob": "bob"}


async def test_an_error_handler_of_the_application_answers_refusals(files: Path) -> None:
    app, _ = gateway(route(auth=["users"]), sections=sections(files), up=says(1))

    @app.errorhandler(401)
    async def login(error: Any) -> Any:
        return "log in", 401, {"www-authenticate": 'Bearer realm="own"'}

    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer.body) == (401, b"log in")


def test_requires_above_the_decorator_that_registers_is_refused(files: Path) -> None:
    app, _ = gateway(sections=sections(files))

    @app.requires("users")
    @app.route("/view")
    async def view() -> Any:
        return "open"

    with pytest.raises(AssertionError, match="requires of view has no effect, because it stands above"):
        app.open_routes()


def test_requires_around_a_handler_of_compose_is_refused(files: Path) -> None:
    app, _ = gateway(sections=sections(files))

    @app.requires("users")
    @app.compose("/x")
    async def handler(compose: Any) -> Any:
        return "open"

    with pytest.raises(AssertionError, match="requires of handler has no effect"):
        app.open_routes()


def test_views_without_access_are_reported_while_there_is_auth(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app, _ = gateway(sections=sections(files))

    @app.route("/view")
    async def view() -> Any:
        return request.path

    @app.route("/public")
    @app.requires("none")
    async def public() -> Any:
        return "open"

    @app.compose("/handler")
    async def handler(compose: Any) -> Any:
        return "open"

    app.open_routes()
    said = capsys.readouterr().err
    assert "warning: anybody may call /handler, /view: write @app.requires(…) below" in said
    assert "/public" not in said


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["user"], {}, r"there is no section \[auth.user\]; name one of: users, partners"),
        ([], {}, "name at least one section"),
        (["none", "users"], {}, '"none" means that anybody may call it'),
        (["none"], {"scopes": ["a"]}, '"none" means that anybody may call it'),
        (["users"], {"scopes": "a"}, "scopes and scopes_any are lists"),
        (["users"], {"scopes": ["a b"]}, '"a b" is no scope'),
        ([["users"]], {}, "the names of sections are texts"),
        ([print], {}, "the names of sections are texts"),
    ],
)
def test_a_mistake_in_the_access_of_code_is_reported_at_once(
    names: list[Any], options: dict[str, Any], message: str, files: Path
) -> None:
    app, _ = gateway(sections=sections(files))
    with pytest.raises(ValueError, match=message):
        app.requires(*names, **options)


def test_access_that_is_stated_twice_is_refused(files: Path) -> None:
    app, _ = gateway(sections=sections(files))
    with pytest.raises(ValueError, match="stated twice"):

        @app.compose("/x", auth="users")
        @app.requires("users")
        async def handler(compose: Any) -> Any:
            return 1


async def test_a_token_that_no_issuer_made_is_refused_like_garbage(files: Path) -> None:
    app, _ = gateway(route(auth=["users"]), sections=sections(files), up=says(1))
    none = f"{encoded({'alg': 'none'})}.{encoded({'iss': ISSUER, 'sub': 'a', 'exp': time.time() + 9})}."
    async with living(app):
        statuses = [
            (await ask(app, target="/r", headers=[bearer(each)])).status for each in (none, "x", "a.b.c", "é", "." * 99)
        ]
        doubled = await ask(app, target="/r", headers=[bearer(token()), bearer(token())])
    assert statuses == [401] * 5
    assert doubled.status == 400
