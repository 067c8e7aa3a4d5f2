"""Whose answer may be cached, by whom, and what becomes of a client's conditions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.configs import write
from tests.support.rawserver import answering, raw_server, response
from tests.support.serving import Reply, fetch, serving
from umbel.cli import main
from umbel.config.schema import Config
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
    """What a client gets where the upstream's answer has these fields."""
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
    ],
)
async def test_what_is_one_clients_is_never_shared_whatever_is_configured(
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


async def test_a_304_is_as_private_as_the_answer() -> None:
    async with raw_server(answering(response(b"1"))) as port, serving(gateway(port, route())) as gate:
        whole = await fetch(gate, "GET", "/r", [("cookie", "a=b")])
        again = await fetch(gate, "GET", "/r", [("cookie", "a=b"), ("if-none-match", whole["etag"])])
    assert (again.status, again["cache-control"]) == (304, "private")


async def test_fields_for_single_caches_go_with_public_answers_alone() -> None:
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
async def test_the_same_holds_for_a_composition_in_code(
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
        (', forward_cookies = ["sid"]', "s-maxage=5", "", "go upstream (a)"),
        (', forward_headers = ["authorization"]', "Public", "", "go upstream (a)"),
        (', forward_headers = ["x-tenant"]', PUBLIC, "", ""),
        (', forward_cookies = ["sid"]', "private, max-age=5", 'forward_cookies = { a = ["sid"] }', ""),
    ],
)
def test_check_warns_of_cookies_beside_public(
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
