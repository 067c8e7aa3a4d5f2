"""Admission of requests: who gets in, on every kind of route, before Quart and through it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.auth.guarded import APP, ISSUER, OTHER, PARTNER, bearer, check_refused, sections, token
from tests.support.auth.tokens import encoded
from tests.support.logs.records import Records
from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel import auth
from umbel.core.failure_kinds import Kind
from umbel.core.identity import AuthResult
from umbel.gateway.app import Umbel

pytestmark = pytest.mark.usefixtures("way")
KINDS = ("composed", "shape", "respond", "redirect", "proxy", "handler", "required handler", "view")
"""The kinds of routes, each with a route at this path: the kind with a hyphen for the space."""


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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "proxy"])
async def test_options_and_a_wrong_method_need_no_credential(kind: str, files: Path) -> None:
    app, _, up = every_kind(files)
    async with living(app):
        for method, status in (("OPTIONS", 204), ("DELETE", 405)):
            answer = await ask(app, method, f"/{kind.replace(' ', '-')}")
            assert answer.status == status
            assert "GET" in (answer["allow"] or "")
    assert not up.asked


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
