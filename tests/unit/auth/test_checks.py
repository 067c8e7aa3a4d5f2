"""Checks and warnings about ``[auth.NAME]``, and about the keys of routes that refer to it."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, loaded, mistakes, write
from umbel.cli import EXIT_CONFIG, main
from umbel.cli.options import load_with_warnings
from umbel.config.schema.sections import Config

MACHINES = '[auth.machines]\nkind = "mtls"\nallow = ["dns:batch.internal"]\n'
PARTNERS = '[auth.partners]\nkind = "api-key"\nfile = "keys.toml"\n'
USERS = '[auth.users]\nkind = "jwt"\nalgorithms = ["ES256"]\nissuers = [{ iss = "https://id", keys = "id.pem", audience = ["a"] }]\n'
REMOTE = '[auth.users]\nkind = "jwt"\nalgorithms = ["ES256"]\nissuers = [{ iss = "https://id", jwks = { upstream = "u", path = "/k" }, audience = ["a"] }]\n'
FILES = {"keys.toml": "keys = []\n", "id.pem": trustme.CA().cert_pem.bytes()}
SHAPE = '[[routes]]\npath = "/r"\nanswer.shape = "path"\n'


def test_a_name_that_no_section_has_is_a_mistake(tmp_path: Path) -> None:
    text = MACHINES + SHAPE + 'auth = "machine"\n' + SHAPE.replace("/r", "/s") + 'auth = ["machines", "x"]\n'
    assert mistakes(tmp_path, text + SHAPE.replace("/r", "/t") + 'auth = "non"\n') == [
        'umbel.toml:7: routes[0].auth: "machine" is no section of [auth]; did you mean "machines"?',
        'umbel.toml:11: routes[1].auth[1]: "x" is no section of [auth]; write the section [auth.x]',
        'umbel.toml:15: routes[2].auth: "non" is no section of [auth]; did you mean "none"?',
    ]


@pytest.mark.parametrize(
    "text",
    [
        'include = ["none.toml"]\n' + SHAPE + 'auth = "users"\n',
        '[atuh.users]\nkind = "mtls"\n' + SHAPE + 'auth = "users"\n',
        "auth = 3\n" + SHAPE + 'auth = "users"\n',
        '[auth.users]\nkind = "x"\n' + SHAPE + 'auth = "users"\n',
        "[auth]\nusers = 3\n" + SHAPE + 'auth = "users"\n',
    ],
)
def test_a_name_is_not_reported_beside_the_mistake_that_hides_its_section(text: str, tmp_path: Path) -> None:
    assert len(found := mistakes(tmp_path, text)) == 1
    assert "routes" not in found[0]


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            'auth = ["none", "machines"]\nscopes = ["a"]\n',
            ['7: routes[0].auth: "none" lets anybody in, so the other names have no effect; write it alone, or remove it'],
        ),
        (
            'auth = "none"\nscopes = ["a"]\nscopes_any = ["b"]\n',
            [
                f'{line}: routes[0].{key}: {key} is about the credential of a request, but the route /r needs none, since it has auth = "none";'
                f" write the names of sections [auth.NAME] into auth, or {key} = []"
                for line, key in ((8, "scopes"), (9, "scopes_any"))
            ],
        ),
        (
            'allow = "path"\n',
            [
                "7: routes[0].allow: allow is about the credential of a request, but the route /r has no auth;"
                " write the names of sections [auth.NAME] into auth, or remove allow"
            ],
        ),
        ("auth = []\n", ["7: routes[0].auth: must not be empty"]),
        ('auth = ["machines", "machines"]\n', ['7: routes[0].auth: "machines" is given twice; write it once']),
        *[
            (
                f'auth = "machines"\nscopes_any = ["{scope}"]\n',
                [
                    "8: routes[0].scopes_any[0]: a scope has at least one character, and no space, quote or backslash (RFC 6749"
                    ' section 3.3); write several as a list, such as ["orders:read", "orders:write"]'
                ],
            )
            for scope in ("a b", "")
        ],
    ],
)  # fmt: skip
def test_keys_about_access_that_contradict_each_other_are_mistakes(keys: str, lines: list[str], tmp_path: Path) -> None:
    assert mistakes(tmp_path, MACHINES + SHAPE + keys) == [f"umbel.toml:{line}" for line in lines]


@pytest.mark.parametrize("expression", ["body.a == 'x'", "c.a == 'x'"])
def test_a_condition_reads_no_body_no_call_and_no_item(expression: str, tmp_path: Path) -> None:
    text = UPSTREAM + MACHINES + ROUTE + CALL + 'methods = ["POST"]\nauth = "machines"\n'
    found = mistakes(tmp_path, text + f'allow = "{expression}"\n')
    reads = "auth, client, cookies, headers, path, query"
    assert found == [f"umbel.toml:11: routes[0].allow: allow is decided before any call, so it reads only {reads}"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("item.a == 'x'", '"item" is known only in a call with each'),
        ("nothing.a == 'x'", '"nothing" is unknown'),
        ("true", '"true" is unknown; for true write "`true`" (a JMESPath literal)'),
    ],
)
def test_a_mistake_in_a_condition_is_reported_once(expression: str, reason: str, tmp_path: Path) -> None:
    text = MACHINES + SHAPE + f'auth = "machines"\nallow = "{expression}"\n'
    assert mistakes(tmp_path, text) == [f"umbel.toml:8: routes[0].allow: {reason}"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (PARTNERS, ["3: auth.partners.file: {0}/keys.toml: cannot be read: there is no such file"]),
        (USERS, ["4: auth.users.issuers[0].keys: the file cannot be read: there is no such file"]),
        (REMOTE, ['4: auth.users.issuers[0].jwks.upstream: "u" is no upstream']),
        (
            USERS.replace('"ES256"', '"None"'),
            [
                '3: auth.users.algorithms[0]: the algorithm "none" means a token without a signature, which anybody can'
                " write, so it is never accepted; write the algorithms with which the issuer signs",
                "4: auth.users.issuers[0].keys: the file cannot be read: there is no such file",
            ],
        ),
    ],
)
def test_what_a_section_refers_to_must_be_there(text: str, lines: list[str], tmp_path: Path) -> None:
    assert mistakes(tmp_path, text) == [f"umbel.toml:{line}".replace("{0}", str(tmp_path)) for line in lines]


def test_all_mistakes_of_a_file_of_keys_are_reported_at_its_section(tmp_path: Path) -> None:
    found = mistakes(tmp_path, PARTNERS, {"keys.toml": "[[keys]]\nid = 3\n"})
    assert [line.split(": ")[2:4] for line in found] == [
        [f"{tmp_path}/keys.toml:1", "keys[0]"],
        [f"{tmp_path}/keys.toml:2", "keys[0].id"],
    ]


def test_a_bad_file_of_keys_ends_a_start_with_the_status_of_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PARTNERS + SHAPE + 'auth = "partners"\n', {"keys.toml": ""})
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve", "--bind", "127.0.0.1:0"])
    assert result.exit_code == EXIT_CONFIG
    assert "umbel.toml:3: auth.partners.file: " in result.stderr


def test_a_default_of_all_routes_is_replaced_by_that_of_a_route(tmp_path: Path) -> None:
    keys = 'auth = "partners"\nscopes = ["a"]\nscopes_any = ["b"]\nallow = "auth.sub"\n'
    text = f"{PARTNERS}[defaults.route]\n{keys}{SHAPE}"
    for number, auth in enumerate(('"none"', '["none"]', '"none"\nscopes = []')):
        text += f"{SHAPE.replace('/r', f'/{number}')}auth = {auth}\n"
    routes = loaded(tmp_path, text, FILES).routes
    assert [(route.auth, route.scopes, route.scopes_any, route.allow) for route in routes] == [
        (("partners",), ("a",), ("b",), "auth.sub"),
        *[(("none",), (), (), None)] * 3,
    ]


def test_a_key_about_credentials_that_a_public_route_writes_itself_is_a_mistake(tmp_path: Path) -> None:
    text = (
        PARTNERS
        + '[defaults.route]\nauth = "partners"\nscopes = ["a"]\n'
        + SHAPE
        + 'auth = "none"\nallow = "auth.sub"\n'
    )
    assert mistakes(tmp_path, text, FILES) == [
        "umbel.toml:11: routes[0].allow: allow is about the credential of a request, but the route /r needs none, since it has"
        ' auth = "none"; write the names of sections [auth.NAME] into auth, or remove allow'
    ]


@pytest.mark.parametrize("word", ["form", "failures"])
def test_reserved_words_name_neither_a_call_nor_a_bound_name(word: str, tmp_path: Path) -> None:
    call = f'calls.{word} = {{ upstream = "u", path = "/" }}\ncalls.c = {{ upstream = "u", path = "/", with.{word} = "path" }}\n'
    assert mistakes(tmp_path, UPSTREAM + ROUTE + call) == [
        f'umbel.toml:5: routes[0].calls.{word}: the name "{word}" is reserved for a later version of Umbel; write another one',
        f'umbel.toml:6: routes[0].calls.c.with.{word}: the name "{word}" is reserved for a later version of Umbel; write another one',
    ]


def test_no_call_is_named_like_the_identity(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, UPSTREAM + ROUTE + CALL.replace("calls.c", "calls.auth"))
    assert line.endswith('a call cannot have the name "auth", which is a table of the context')


def warnings(directory: Path, text: str, hypercorn: str | None = None) -> list[str]:
    """The warnings of ``umbel check`` about a configuration, without the directory."""
    write(directory, text, FILES if hypercorn is None else {**FILES, "hypercorn.toml": hypercorn})
    before = Path.cwd()
    os.chdir(directory)
    try:
        return list(map(str, load_with_warnings("umbel.toml").warnings))
    finally:
        os.chdir(before)


def of_auth(found: list[str]) -> list[str]:
    return [line for line in found if ": logs." not in line]


def test_a_route_without_auth_is_a_warning_while_any_section_stands(tmp_path: Path) -> None:
    route = SHAPE + 'auth = "partners"\n'
    open_routes = SHAPE.replace("/r", "/s") + SHAPE.replace("/r", "/t") + 'auth = "none"\n' + SHAPE.replace("/r", "/u")
    reason = 'has no auth, so anybody may call it; write auth = "none" if that is meant'
    assert of_auth(warnings(tmp_path, PARTNERS + route + open_routes)) == [
        f"umbel.toml:8: routes[1]: {reason}",
        f"umbel.toml:15: routes[3]: {reason}",
    ]
    assert of_auth(warnings(tmp_path, SHAPE)) == []


def test_sections_that_do_less_than_they_seem_to_are_warnings(tmp_path: Path) -> None:
    users = USERS.replace(', audience = ["a"]', "") + 'from = ["header", "query:token"]\n'
    route = SHAPE + 'auth = "users"\n'
    assert of_auth(warnings(tmp_path, PARTNERS + users + route)) == [
        "umbel.toml:1: auth.partners: no route of the configuration has it in auth",
        "umbel.toml:7: auth.users.issuers[0]: has no audience, so a token that the issuer made for another service is accepted too",
        "umbel.toml:8: auth.users.from[1]: URLs are kept in logs and histories of browsers and proxies, and so is a token in a query"
        " (RFC 6750 section 2.3); write header if clients can send one",
    ]


@pytest.mark.parametrize(
    ("more", "hypercorn", "warned"),
    [
        ("", None, True),
        ("", "backlog = 7\n", True),
        ("", "verify_mode = 0\n", True),
        ("", "verify_mode = 1\n", False),
        ("", "verify_mode = 2\n", False),
        ('[server]\ntrusted_proxies = ["10.0.0.1"]\n', None, False),
    ],
)
def test_certificates_that_nobody_can_present_are_a_warning(
    more: str, hypercorn: str | None, warned: bool, tmp_path: Path
) -> None:
    found = of_auth(warnings(tmp_path, MACHINES + more + SHAPE + 'auth = "machines"\n', hypercorn))
    assert found == (
        [
            "umbel.toml:2: auth.machines.kind: no client can present a certificate: write ca_certs and verify_mode into"
            " hypercorn.toml, or trusted_proxies into [server]"
        ]
        if warned
        else []
    )


KEY_SENT = 'sends the client\'s key on: "x-api-key" is the field of an API key of this gateway'
TOKEN_SENT = 'sends the client\'s token on: "token" is a cookie with a token for this gateway'
COOKIES_SENT = (
    "sends the client's token on, which this gateway reads from a cookie (token); name the other cookies in"
    " forward_cookies of the call, or as cookies.NAME"
)
TWO = UPSTREAM + UPSTREAM.replace("upstreams.u", "upstreams.v")


@pytest.mark.parametrize(
    ("keys", "at", "reason"),
    [
        ('forward_headers = ["x-a", "X-Api-Key"]', "forward_headers[1]", KEY_SENT),
        ('headers.x-key = "k {headers.x_api_key}"', "headers.x-key", KEY_SENT),
        ('params.key = "headers.x_api_key"', "params.key", KEY_SENT),
        ('with.key = "headers.x_api_key"', "with.key", KEY_SENT),
        ('method = "POST"\njson = "{ key: headers.x_api_key }"', "json", KEY_SENT),
        ('each = "[headers.x_api_key]"', "each", KEY_SENT),
        ('path = "/{headers.x_api_key}"', "path", KEY_SENT),
        ('forward_headers = ["cookie"]', "forward_headers[0]", COOKIES_SENT),
        ('headers.x-all = "{headers.cookie}"', "headers.x-all", COOKIES_SENT),
        ('forward_cookies = ["theme", "token"]', "forward_cookies[1]", TOKEN_SENT),
        ('headers.cookie = "t={cookies.token}"', "headers.cookie", TOKEN_SENT),
        ('form = { t = "cookies.token" }', "form.t", TOKEN_SENT),
    ],
)
@pytest.mark.parametrize("access", ['["users", "partners"]', '"none"'])
def test_a_call_that_sends_a_credential_of_the_client_on_is_a_warning(
    keys: str, at: str, reason: str, access: str, tmp_path: Path
) -> None:
    route = f'[[routes]]\npath = "/r"\nmethods = ["POST"]\nauth = {access}\n'
    call = "" if keys.startswith("path") else 'path = "/"\n'
    text = (
        f'{UPSTREAM}{PARTNERS}{USERS}from = ["cookie:token"]\n{route}[routes.calls.c]\nupstream = "u"\n{call}{keys}\n'
    )
    used = f'{SHAPE.replace("/r", "/used")}auth = ["users", "partners"]\n'
    (line,) = (line for line in warnings(tmp_path, text + used) if " on" in line and "sends the client" in line)
    assert line.partition(": ")[2] == f"routes[0].calls.c.{at}: {reason}"


@pytest.mark.parametrize(
    "keys",
    [
        'forward_headers = ["*"]',
        'forward_cookies = ["*"]',
        'forward_headers = ["cookie"]\nforward_cookies = ["theme"]',
        'headers.cookie = "theme={cookies.theme}"',
        'when = "cookies.token"',
        'forward_headers = ["authorization"]',
        'params.t = { value = "cookies.token" }',
    ],
)
def test_a_call_that_keeps_the_credentials_of_clients_is_no_warning(keys: str, tmp_path: Path) -> None:
    call = f'{ROUTE}auth = "users"\n[routes.calls.c]\nupstream = "u"\npath = "/"\n{keys}\n'
    found = warnings(tmp_path, f'{UPSTREAM}{PARTNERS}{USERS}from = ["header", "cookie:token"]\n{call}')
    assert not any("sends the client" in line for line in found)


@pytest.mark.parametrize(
    ("route", "at"),
    [
        ('proxy = { upstream = "u", request_headers = { set = { x-key = "{headers.x_api_key}" } } }', "routes[0].proxy.request_headers.set.x-key"),
        ('proxy = { upstream = "u", request_headers = { add = { x-key = "{headers.x_api_key}" } } }', "routes[0].proxy.request_headers.add.x-key"),
        ('proxy = { upstream = "v" }', "upstreams.v.headers.x-key"),
        ('proxy = { upstream = "u", fallback = ["v"] }', "upstreams.v.headers.x-key"),
        ('proxy = { upstream = "u", mirror = { upstream = "v", share = "1%" } }', "upstreams.v.headers.x-key"),
        ('calls.c = { upstream = "v", path = "/" }', "upstreams.v.headers.x-key"),
        ('calls.c = { upstream = "u", path = "/", mirror = { upstream = "v", share = "1%" } }', "upstreams.v.headers.x-key"),
        ('calls.c = { upstream = "u", path = "/", split = { v = "1%" } }', "upstreams.v.headers.x-key"),
    ],
)  # fmt: skip
def test_an_upstream_or_a_mirror_that_gets_a_key_by_a_template_is_a_warning(
    route: str, at: str, tmp_path: Path
) -> None:
    headers = 'headers = { x-key = "{headers.x_api_key}" }\n' if at.startswith("upstreams") else ""
    found = warnings(tmp_path, f'{TWO}{headers}{PARTNERS}[[routes]]\npath = "/r"\nauth = "partners"\n{route}\n')
    (line,) = (line for line in found if "sends the client" in line)
    assert line.partition(": ")[2] == f"{at}: {KEY_SENT}"


def test_the_checks_accept_what_has_no_section() -> None:
    from umbel.auth.checks import check, warn

    assert [*check(Config()), *warn(Config()), *warn(Config(), {})] == []
