"""``umbel explain``: who may call a route, and which requests it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import UPSTREAM, write
from umbel.cli import main

DIGEST = hashlib.sha256(b"uk_secret").hexdigest()
SECTIONS = """\
[auth.machines]
kind = "mtls"
allow = ["spiffe://example.org/batch", "dns:batch.internal"]
[auth.partners]
kind = "api-key"
file = "keys.toml"
[auth.users]
kind = "jwt"
algorithms = ["RS256", "ES256"]
from = ["header", "cookie:session", "query:token"]
issuers = [
  { iss = "https://id", jwks = { upstream = "u", path = "/keys" }, audience = ["shop", "app"] },
  { iss = "${ISSUER}", jwks = { upstream = "u", path = "/keys" } },
]
"""
ROUTES = """\
[[routes]]
path = "/r/<tenant>"
auth = ["users", "partners", "machines"]
scopes = ["a", "b"]
scopes_any = ["c"]
allow = "auth.claims.tenant == path.tenant"
answer.shape = "path"
[[routes]]
path = "/one"
auth = "partners"
answer.shape = "`1`"
[[routes]]
path = "/public"
auth = "none"
answer.shape = "`1`"
[[routes]]
path = "/silent"
answer.shape = "`1`"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys = f'[[keys]]\nid = "acme"\nsha256 = "{DIGEST}"\n'
    write(tmp_path, UPSTREAM + SECTIONS + ROUTES, {"keys.toml": keys})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISSUER", "https://secret-issuer")
    return tmp_path


def explained(path: str) -> list[str]:
    result = CliRunner().invoke(main, ["explain", "GET", path])
    assert result.exit_code == 0, result.output
    assert DIGEST not in result.output
    assert "secret-issuer" not in result.output
    lines = result.output.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("  access ")), len(lines))
    end = next((number for number, line in enumerate(lines) if line.startswith("  limits ")), first)
    return [line[11:] for line in lines[first:end]]


def test_each_credential_is_shown_with_its_place_and_what_it_must_grant(directory: Path) -> None:
    assert explained("/r/x") == [
        "users: token (RS256, ES256) in Authorization: Bearer or in the cookie session or in the query parameter token,"
        " issued by https://id for shop or app or ${ISSUER} for any audience  [umbel.toml:9]",
        f"or partners: API key in x-api-key, of the file {directory}/keys.toml  [umbel.toml:6]",
        "or machines: client certificate for spiffe://example.org/batch or dns:batch.internal  [umbel.toml:3]",
        "all of the scopes a, b",
        "one of the scopes c",
        "if auth.claims.tenant == path.tenant",
        "else 401: without a credential, or with one that is not valid; 400: with a malformed one",
        "403: without the scopes, or if allow is false, or with a token in a cookie, if the method is unsafe and the"
        " origin is not allowed",
        "503: while the keys of the token's issuer cannot be fetched",
    ]


def test_a_cause_that_a_route_cannot_have_is_not_shown(directory: Path) -> None:
    assert [line.partition(":")[0] for line in explained("/one")] == ["partners", "else 401"]


def test_a_public_route_says_whether_that_is_written(directory: Path) -> None:
    assert explained("/public") == ['anybody: auth = "none"']
    assert explained("/silent") == ["anybody: the route has no auth"]


def test_the_json_document_has_the_lines(directory: Path) -> None:
    result = CliRunner().invoke(main, ["explain", "GET", "/public", "--json"])
    assert json.loads(result.output)["route"]["access"] == ['anybody: auth = "none"']


def test_a_gateway_without_credentials_says_nothing_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, '[[routes]]\npath = "/r"\nanswer.shape = "`1`"\n')
    monkeypatch.chdir(tmp_path)
    assert explained("/r") == []


@pytest.mark.parametrize("more", [(), ("--json",), ("--mermaid",)], ids=["tree", "JSON", "mermaid"])
@pytest.mark.parametrize("path", ["/r/acme", "/one", "/silent", "/nowhere"])
def test_credentials_of_the_request_are_not_printed(path: str, more: tuple[str, ...], directory: Path) -> None:
    headers = ("authorization: Bearer hunter2", "x-api-key: hunter2", "cookie: session=hunter2")
    fields = [word for header in headers for word in ("-H", header)]
    arguments = ("explain", "GET", f"{path}?a=1&token=hunter2&t%6Fken=hunter2", *fields, *more)

    assert "hunter2" not in CliRunner().invoke(main, arguments).output


def test_the_value_of_a_token_in_the_query_is_replaced_in_the_first_line(directory: Path) -> None:
    output = CliRunner().invoke(main, ["explain", "GET", "/silent?token=hunter2&b=2"]).output

    assert output.startswith("GET /silent?token=[redacted]&b=2")


def test_limits_stand_before_and_after_the_credentials_as_they_are_decided(directory: Path) -> None:
    text = '[limits.sub]\nkey = "auth.sub"\nrate = "10/s"\nburst = 20\ncost = "to_number(headers.x_cost)"\n'
    text += '[limits.ip]\nkey = "client.ip"\nrate = "0.5/s"\nburst = 5\n'
    text += '[[routes]]\npath = "/limited"\nauth = "machines"\nlimits = ["sub", "ip"]\nanswer.shape = "auth"\n'
    write(directory, UPSTREAM + SECTIONS + ROUTES + text, {"keys.toml": "keys = []\n"})
    lines = explained("/limited")
    ip, machines, sub = (
        next(place for place, line in enumerate(lines) if word in line)
        for word in (
            "limit ip: at most 0.5/s and 5 at once for each client.ip, in all",
            "machines: client",
            "limit sub: at",
        )
    )
    assert ip < machines < sub
    assert "at most 10/s and 20 at once for each auth.sub, each at the cost to_number(headers.x_cost)" in lines[sub]


def test_the_limits_of_the_server_stand_before_those_of_the_route(directory: Path) -> None:
    text = '[server]\nlimits = "all"\n[limits.all]\nkey = "client.ip"\nrate = "9/s"\nburst = 7\n'
    text += '[[routes]]\npath = "/limited"\nanswer.shape = "path"\n'
    write(directory, UPSTREAM + SECTIONS + ROUTES + text, {"keys.toml": "keys = []\n"})
    (line,) = [each for each in explained("/limited") if "limit all" in each]
    assert "limit all of all requests: at most 9/s and 7 at once for each client.ip, in all workers together" in line


def test_credentials_left_out_by_a_star_are_named_and_a_token_is_not_ignored(directory: Path) -> None:
    call = 'calls.a = { upstream = "u", path = "/", forward_headers = ["*"], forward_cookies = ["*"] }\n'
    text = UPSTREAM + SECTIONS + f'[[routes]]\npath = "/star"\nauth = ["users", "partners"]\n{call}'
    (directory / "umbel.toml").write_text(text)
    result = CliRunner().invoke(main, ["explain", "GET", "/star?token=eyJ.a.b&other=1"])
    assert result.exit_code == 0
    assert "forwards no API key of this gateway (x-api-key)" in result.stdout
    assert "forwards all cookies of the client but session" in result.stdout
    assert 'The query parameter "other" is ignored' in result.stdout
    assert 'The query parameter "token"' not in result.stdout


def test_a_redirect_and_a_refusal_show_no_token_of_the_query(directory: Path) -> None:
    text = UPSTREAM + SECTIONS + '[[routes]]\npath = "/slash/"\nauth = "users"\nanswer.shape = "auth.sub"\n'
    (directory / "umbel.toml").write_text(text)
    for target in ("/slash?token=eyJSECRET&a=1", "//slash/?tok%65n=eyJSECRET", "/slash/#?token=eyJSECRET"):
        result = CliRunner().invoke(main, ["explain", "GET", target])
        assert result.exit_code == 1
        assert "eyJSECRET" not in result.output, result.output


@pytest.mark.parametrize("path", ["/composed", "/proxied"])
def test_the_limits_of_the_upstreams_of_a_route_are_shown(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[limits.slow]\nkey = "auth.sub || client.ip"\nrate = "10/s"\nburst = 20\ncost = "to_number(query.n)"\n'
    text += (
        '[upstreams.up]\nurls = ["http://127.0.0.1:9"]\nlimits = "slow"\n' + SECTIONS.partition("[auth.partners]")[0]
    )
    text += '[[routes]]\npath = "/composed"\ncalls.c = { upstream = "up", path = "/" }\n'
    text += '[[routes]]\npath = "/proxied"\nproxy = { upstream = "up" }\n'
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    output = CliRunner().invoke(main, ["explain", "GET", path, "--json"]).output
    said = "at most 10/s and 20 at once for each auth.sub || client.ip, each at the cost to_number(query.n)"
    (found,) = [each for each in _limits_in(json.loads(output)) if each["key"] == "limits.slow"]
    assert found["value"].startswith(said)
    assert found["value"].endswith("more calls wait")
    assert found["place"] == "umbel.toml:8"
    assert "limits.slow" in CliRunner().invoke(main, ["explain", "GET", path]).output


def _limits_in(shown: Any) -> list[dict[str, Any]]:
    """All objects of a document that are limits."""
    if isinstance(shown, list):
        return [found for each in shown for found in _limits_in(each)]
    if not isinstance(shown, dict):
        return []
    own = [shown] if {"key", "value", "place"} <= shown.keys() else []
    return own + [found for each in shown.values() for found in _limits_in(each)]
