"""Checks for keys about credentials that have no effect, or another one than was meant."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, mistakes
from tests.unit.auth.test_checks import FILES, MACHINES, PARTNERS, SHAPE, USERS, of_auth, warnings


@pytest.mark.parametrize("name", ["X_Api_Key", "x_key"])
def test_a_key_field_that_the_server_refuses_is_a_mistake(name: str, tmp_path: Path) -> None:
    text = PARTNERS + f'header = "{name}"\n' + SHAPE + 'auth = "partners"\n'
    assert mistakes(tmp_path, text, FILES) == [
        f'umbel.toml:4: auth.partners.header: a request with "{name.lower()}" gets 400 for the underscore; write hyphens, or'
        ' underscore_headers = "keep" in [server]'
    ]
    assert mistakes(tmp_path, '[server]\nunderscore_headers = "keep"\n' + text, FILES) == []


@pytest.mark.parametrize(
    "name", ["Cookie", "Origin", "Accept", "accept-language", "X-Forwarded-User", "forwarded", "Sec-Fetch-Site", "via"]
)
def test_a_field_with_another_meaning_cannot_be_that_of_keys(name: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, PARTNERS + f'header = "{name}"\n' + SHAPE, FILES) == [
        f'umbel.toml:4: auth.partners.header: "{name.lower()}" has another meaning for browsers, proxies or the gateway; write'
        ' a field of its own, such as "x-api-key"'
    ]


@pytest.mark.parametrize("name", ["authorization", "connection", "host", "content-length", "proxy-authorization", "te"])
def test_a_field_of_the_connection_or_of_schemes_cannot_be_that_of_keys(name: str, tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, PARTNERS + f'header = "{name}"\n' + SHAPE, FILES)) == 1


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("spiffe://a/*", True),
        ("spiffe://a/b/*", True),
        ("spiffe://a*", False),
        ("spiffe://*", False),
        ("spiffe://*/b", False),
        ("spiffe://a/*/b", False),
        ("spiffe://a/b*", False),
        ("spiffe://a/*/*", False),
        ("dns:*.workers.internal", True),
    ],
)
def test_a_star_in_a_name_of_certificates_stands_only_at_the_end(name: str, allowed: bool, tmp_path: Path) -> None:
    text = MACHINES.replace("dns:batch.internal", name) + SHAPE + 'auth = "machines"\n'
    expected = (
        f'umbel.toml:3: auth.machines.allow[0]: "{name}" has a * that stands for nothing: only /* at the end of a URI with a'
        " host stands for all names below; write each name, or such a URI"
    )
    assert mistakes(tmp_path, text) == ([] if allowed else [expected])


@pytest.mark.parametrize(
    ("path", "reason"),
    [("jwks.json", 'a path begins with a slash, such as "/jwks.json"'), ("/a b", "a path has no space, control")],
)
def test_a_wrong_path_of_a_key_set_says_what_is_wrong(path: str, reason: str, tmp_path: Path) -> None:
    issuer = f'{{ iss = "https://id", jwks = {{ upstream = "u", path = "{path}" }} }}'
    text = UPSTREAM + f'[auth.users]\nkind = "jwt"\nalgorithms = ["ES256"]\nissuers = [{issuer}]\n' + SHAPE
    (line,) = mistakes(tmp_path, text)
    assert f"auth.users.issuers[0].jwks.path: {reason}" in line


@pytest.mark.parametrize("key", ["scopes", "scopes_any"])
def test_scopes_of_a_route_for_certificates_alone_are_a_mistake(key: str, tmp_path: Path) -> None:
    text = MACHINES + SHAPE + f'auth = "machines"\n{key} = ["a"]\n'
    assert mistakes(tmp_path, text) == [
        f"umbel.toml:8: routes[0].{key}: client certificates grant no scopes, and the route /r accepts nothing else, so it would"
        " refuse every request; compare the name in allow, such as auth.sub == 'spiffe://…'"
    ]
    both = text.replace('auth = "machines"', 'auth = ["machines", "partners"]')
    assert mistakes(tmp_path, PARTNERS + both, FILES) == []


def test_a_certificate_field_is_never_forwarded_by_a_call(tmp_path: Path) -> None:
    text = (
        UPSTREAM
        + ROUTE
        + CALL
        + 'calls.d = { upstream = "u", path = "/", forward_headers = ["X-Forwarded-Client-Cert"] }\n'
    )
    (line,) = mistakes(tmp_path, text)
    assert line.endswith(
        'forward_headers[0]: "x-forwarded-client-cert" says who the client is, and no upstream gets it; send {auth.sub} in a field'
    )


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            USERS + 'required = ["sub"]\n',
            "5: auth.users.required: has no exp, so a token without exp is accepted for ever; add it",
        ),
        (
            USERS + 'leeway = "10m"\n',
            "5: auth.users.leeway: is 10m: a token is accepted for so long after it has expired; clocks differ by seconds",
        ),
        (USERS + 'leeway = "5m"\n', None),
        (
            MACHINES.replace("batch.internal", "*.com"),
            "3: auth.machines.allow[0]: lets each host directly below a top-level domain in; write more labels, such as"
            " dns:*.workers.internal",
        ),
    ],
)
def test_a_section_that_accepts_too_much_is_a_warning(text: str, warning: str | None, tmp_path: Path) -> None:
    name = "users" if "users" in text else "machines"
    found = of_auth(warnings(tmp_path, text + SHAPE + f'auth = "{name}"\n[server]\ntrusted_proxies = ["127.0.0.1"]\n'))
    assert found == ([] if warning is None else [f"umbel.toml:{warning}"])


def test_a_condition_about_claims_without_tokens_is_a_warning(tmp_path: Path) -> None:
    text = PARTNERS + SHAPE + 'auth = "partners"\nallow = "auth.claims.tenant == \'a\'"\n'
    assert [line for line in of_auth(warnings(tmp_path, text)) if "reads auth.claims" in line] == [
        "umbel.toml:8: routes[0].allow: reads auth.claims, which only tokens have, and no section in auth of the route /r is of"
        " the kind jwt: so it is always null"
    ]
    both = USERS + text.replace('auth = "partners"', 'auth = ["partners", "users"]')
    assert [line for line in of_auth(warnings(tmp_path, both)) if "reads auth.claims" in line] == []


@pytest.mark.parametrize(("value", "shared"), [("public, max-age=60", True), ("private, max-age=60", False)])
def test_a_proxied_response_for_shared_caches_beside_auth_is_a_warning(
    value: str, shared: bool, tmp_path: Path
) -> None:
    route = f'[[routes]]\npath = "/p"\nauth = "machines"\nproxy = {{ upstream = "u", response_headers = {{ set = {{ Cache-Control = "{value}" }} }} }}\n'
    found = [line for line in of_auth(warnings(tmp_path, UPSTREAM + MACHINES + route)) if "shared caches" in line]
    assert len(found) == shared
    assert all("proxy.response_headers.set.cache-control: lets shared caches" in line for line in found)
