"""``@app.requires``, ``auth`` of ``@app.compose`` and ``umbel.auth.current``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from quart import request, websocket

from tests.support.auth.guarded import bearer, sections, token
from tests.support.server.asgi import ask, living
from tests.support.server.asgi_websocket import converse
from tests.unit.gateway.gateways import gateway, route, says
from umbel import auth
from umbel.core.identity import AuthResult

pytestmark = pytest.mark.usefixtures("way")


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
