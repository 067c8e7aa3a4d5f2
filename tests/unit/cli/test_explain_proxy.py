"""``umbel explain`` for a proxy route: the request to the upstream, what is dropped, and the limits in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.gateway.configs import write
from umbel.cli import main

CONFIG = """\
[upstreams.files]
urls = ["http://files.internal:9001/base"]
headers = { x-key = "${SECRET}" }
[upstreams.spare]
urls = ["http://spare"]
max_concurrency = 7
forwarded = false
[[routes]]
path = "/files/<path:rest>"
[routes.proxy]
upstream = "files"
path = "/v2/{+rest}?key=${SECRET}"
fallback = ["spare"]
split = { spare = "5%" }
split_key = "client.ip"
max_lifetime = "1h"
websocket = { origins = ["https://a.example"] }
mirror = { upstream = "spare", share = "10%" }
request_headers = { remove = ["cookie"], set = { x-a = "{headers.x_who}" } }
response_headers = { remove = ["server"] }
[routes.proxy.rewrite]
cookie_domain = { "files.internal" = "" }
[[routes]]
path = "/<path:rest>"
methods = ["GET"]
proxy = { upstream = "spare", max_body = "1GiB" }
"""
TREE = """\
POST /files/a@b/c?x=1&key=2: rest = "a@b/c"

any method /files/<path:rest>  [umbel.toml:9]
  limits   first_byte 10s · idle_timeout 5m · max_lifetime 1h [umbel.toml:16] · max_body off ·
           server.write_timeout 30s · logs.calls.which notable
  answer   varies with x-who
  proxy    POST /v2/a@b/c?key=${SECRET}&x=1 to files
           splits 5% to spare, by client.ip: give the address of the client with --client to see which
           falls back to spare
           mirrors 10% of GET, HEAD to spare
           passes on x-who, accept
           drops cookie, connection, x-forwarded-for
           sets x-key, x-a
           writes via, x-request-id, traceparent, x-forwarded-for, x-forwarded-proto, x-forwarded-host
           response: removes server
           response: Domain files.internal of cookies becomes none
           websocket: passed on from https://a.example
  files: max_concurrency 100 · max_queue 256 · connect_timeout 1s · keepalive_expiry 4s · max_head 64KiB ·
     max_fields 100 · forwarded true · public_only false
  spare: max_concurrency 7 [umbel.toml:6] · max_queue 256 · connect_timeout 1s · keepalive_expiry 4s ·
     max_head 64KiB · max_fields 100 · forwarded false [umbel.toml:7] · public_only false

Limits without a place are defaults.
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CONFIG)
    return tmp_path


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], env={"SECRET": "hunter2"})


FIELDS = ("Cookie: a=1", "X-Who: me", "Accept: x", "Connection: x-forwarded-for", "X-Forwarded-For: 192.0.2.9")


def test_the_request_to_the_upstream_is_shown_with_all_limits_and_no_secret() -> None:
    result = explain("POST", "/files/a@b/c?x=1&key=2", *(part for each in FIELDS for part in ("-H", each)))
    assert result.stdout == TREE
    assert result.exit_code == 0


def test_an_upstream_without_forwarded_gets_no_fields_about_the_client() -> None:
    shown = explain("GET", "/x?y").stdout
    assert "  proxy    GET /x?y to spare\n           writes via, x-request-id, traceparent\n" in shown
    assert "max_body 1GiB [umbel.toml:26]" in shown
    assert "websocket: not passed on" in shown


def test_a_path_that_the_upstream_could_read_in_another_way_is_refused() -> None:
    result = explain("GET", "/files/a/..;/b")
    assert (result.exit_code, result.stderr) == (1, "GET /files/a/..;/b: 400, The path holds a dot segment.\n")


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("TRACE", "/files/a", "405, the path is known, the method is not"),
        ("PUT", "/x", "405, the path is known, the method is not; allowed: GET, HEAD, OPTIONS"),
    ],
)
def test_a_method_that_the_route_lacks_is_405(method: str, path: str, said: str) -> None:
    assert said in explain(method, path).stderr


def test_options_is_passed_on() -> None:
    assert "OPTIONS /v2/a?key=${SECRET} to files" in explain("OPTIONS", "/files/a").stdout


def test_the_explanation_as_json_has_the_same_parts() -> None:
    route = json.loads(explain("GET", "/files/a", "--json", "-H", "Accept: x").stdout)["route"]
    assert route["proxy"]["target"] == "/v2/a?key=${SECRET}"
    assert route["proxy"]["passed_on"] == ["accept"]
    assert list(route["upstreams"]) == ["files", "spare"]
    assert route["methods"] == ["any method"]


def test_a_flowchart_names_the_upstream() -> None:
    assert '  answer(["answer: passed on to files"])' in explain("GET", "/files/a", "--mermaid").stdout


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


@pytest.mark.parametrize(
    ("method", "path", "fields", "said"),
    [
        ("GET", "/x", UPGRADE, "400, This path passes no WebSocket connections on."),
        ("GET", "/files/a", (*UPGRADE, "Origin: https://b.example"), "403, A page of this origin may not open this"),
        ("POST", "/x", ("Content-Length: 1073741825",), "405, "),
        ("GET", "/x", ("Content-Length: 1073741825",), "413, The body is larger than 1073741824 bytes, the limit of"),
    ],
)
def test_a_refusal_of_the_route_is_foreseen(method: str, path: str, fields: tuple[str, ...], said: str) -> None:
    result = explain(method, path, *(part for each in fields for part in ("-H", each)))
    assert result.stderr.startswith(f"{method} {path}: {said}")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("method", "more", "passed", "dropped"),
    [
        ("GET", ["Origin: https://a.example"], "connection, upgrade, sec-websocket-version, origin", None),
        ("GET", ["Content-Length: 1"], "sec-websocket-version, content-length", "connection, upgrade"),
        ("POST", [], "sec-websocket-version", "connection, upgrade"),
    ],
)
def test_the_upgrade_to_a_websocket_is_passed_on(
    method: str, more: list[str], passed: str, dropped: str | None
) -> None:
    shown = explain(method, "/files/a", *(part for each in (*UPGRADE, *more) for part in ("-H", each))).stdout
    assert f"passes on {passed}\n" in shown
    assert ("drops " in shown) is (dropped is not None)
    assert dropped is None or f"drops {dropped}\n" in shown


def test_a_body_of_any_size_is_passed_on_without_a_max_body() -> None:
    assert explain("POST", "/files/a", "-H", "Content-Length: 99999999999").exit_code == 0


def test_a_credential_for_the_gateway_is_not_passed_on(here: Path) -> None:
    section = '[auth.users]\nkind = "jwt"\nalgorithms = ["ES256"]\nfrom = ["header", "cookie:t", "query:token"]\n'
    issuers = 'issuers = [{ iss = "i", audience = ["a"], jwks = { upstream = "up", path = "/keys" } }]\n'
    route = '[[routes]]\npath = "/p"\nauth = "users"\nproxy.upstream = "up"\n'
    write(here, f'upstreams.up.urls = ["http://up"]\n{section}{issuers}{route}')

    def told(*arguments: str) -> Any:
        return json.loads(explain("GET", *arguments, "--json").stdout)["route"]["proxy"]

    cut = told("/p?token=a.b.c&x=1", "-H", "Cookie: t=a.b.c")
    assert (cut["target"], cut["dropped"]) == ("/p?x=1", ["cookie"])
    bearer = told("/p", "-H", "Authorization: Bearer a.b.c", "-H", "X-A: 1")
    assert (bearer["passed_on"], bearer["dropped"]) == (["x-a"], ["authorization"])
    assert told("/p", "-H", "Authorization: Basic YTpi")["passed_on"] == ["authorization"]
