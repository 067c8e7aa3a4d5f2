"""Origins from which a request with a token in a cookie is admitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.auth.guarded import APP, bearer, check_refused, sections, token
from tests.support.logs.records import Records
from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import gateway, route, says
from umbel.core.identity import AuthResult
from umbel.gateway.app import Umbel

pytestmark = pytest.mark.usefixtures("way")


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
