"""``auth/jwt/discovery.py``: where the key set of an issuer is, by OpenID Connect Discovery."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.auth.providers import FIRST, Provider
from umbel.auth.jwt.discovery import discovered, key_set_path, origin_of, path_of_issuer
from umbel.auth.jwt.key_source import FetchError

ISSUER = "https://id.example/tenant"


def document(**changed: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://id.example/keys?v=1", **changed}).encode()


def path(content: bytes, origins: tuple[str, ...] = ("https://id.example:443",)) -> str:
    return key_set_path(content, ISSUER, set(origins))


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("https://id.example", "/.well-known/openid-configuration"),
        ("https://id.example/", "/.well-known/openid-configuration"),
        ("https://id.example/a/b", "/a/b/.well-known/openid-configuration"),
        ("https://id.example/a/", "/a/.well-known/openid-configuration"),
        ("http://127.0.0.1:8080", "/.well-known/openid-configuration"),
        ("https://id.example/?a", None),
        ("https://id.example/#a", None),
        ("https://id.example:x/", None),
        ("https://user@id.example/", None),
        ("id.example", None),
        ("ftp://id.example/", None),
        ("https:///a", None),
        ("https://id.example/a b", None),
        ("https://id.example/\xe9", None),
        ("https://[::1", None),
        ("", None),
    ],
)
def test_the_configuration_is_below_the_path_of_the_issuer(issuer: str, expected: str | None) -> None:
    assert path_of_issuer(issuer) == expected


@pytest.mark.parametrize(
    ("one", "two"),
    [("https://A.example/x", "https://a.example:443"), ("http://a.example:80", "http://a.example/y?z")],
)
def test_origins_are_compared_with_their_port_and_without_case(one: str, two: str) -> None:
    assert origin_of(one) == origin_of(two) != ""


def test_path_and_query_of_the_key_set_are_taken() -> None:
    assert path(document()) == "/keys?v=1"
    assert path(document(jwks_uri="https://ID.example:443")) == "/"
    assert path(document(jwks_uri="http://10.0.0.1:8080/k"), ("http://10.0.0.1:8080",)) == "/k"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "no JSON object"),
        (b"[]", "no JSON object"),
        (document(issuer="https://id.example/tenant/"), "another issuer"),
        (document(issuer="https://evil.example"), "another issuer"),
        (document(issuer=None), "another issuer"),
        (document(jwks_uri=None), "no URL"),
        (document(jwks_uri=7), "no URL"),
        (document(jwks_uri="https://id.example/" + "a" * 3000), "no URL"),
        (document(jwks_uri="https://id.example/a\r\nb"), "no URL"),
        (document(jwks_uri="https://evil.example/keys"), "neither the origin"),
        (document(jwks_uri="http://id.example/keys"), "neither the origin"),
        (document(jwks_uri="https://id.example:8443/keys"), "neither the origin"),
        (document(jwks_uri="https://id.example@evil.example/keys"), "neither the origin"),
        (document(jwks_uri="https://a@id.example/keys"), "neither the origin"),
        (document(jwks_uri="file:///etc/passwd"), "neither the origin"),
        (document(jwks_uri="/keys"), "neither the origin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_leads_elsewhere_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        path(content)


async def test_both_documents_are_fetched_through_the_upstream() -> None:
    provider = Provider({"/tenant/.well-known/openid-configuration": document(), "/keys?v=1": FIRST})

    assert await discovered(ISSUER)(provider) == FIRST
    assert provider.paths == ["/tenant/.well-known/openid-configuration", "/keys?v=1"]


async def test_the_key_set_may_have_the_origin_of_the_upstream() -> None:
    content = document(jwks_uri="http://10.0.0.1:8080/keys")
    provider = Provider({"/tenant/.well-known/openid-configuration": content, "/keys": FIRST})

    with pytest.raises(FetchError, match="neither the origin"):
        await discovered(ISSUER)(provider)
    provider.origins = frozenset({"http://10.0.0.1:8080"})
    assert await discovered(ISSUER)(provider) == FIRST


def test_an_issuer_that_is_no_url_cannot_be_discovered() -> None:
    with pytest.raises(ValueError, match="no http or https URL"):
        discovered("accounts")
