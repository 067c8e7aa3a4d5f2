"""The provider of the tests: it issues tokens as RFC 6749 and RFC 7636 say, and to nobody else."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.auth.oidc_provider import (
    REDIRECT,
    SPA,
    Provider,
    TokenError,
    ask_for_token,
    provided,
    signed_in,
)
from tests.support.server.serving import fetch

USERS = {"ada": {"tenant": "fashion"}}


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_user_who_signs_in_gets_a_token_that_the_published_keys_verify(algorithm: str) -> None:
    async with provided(Provider(algorithm, users=USERS)) as provider:
        granted = await signed_in(provider, "ada", "orders:read")
        keys = (await fetch(provider.port, "GET", "/jwks.json")).json
        assert all("d" not in key for key in keys["keys"])
        token = jwt.decode(granted["access_token"], KeySet.import_key_set(keys), algorithms=[algorithm])
    assert token.claims.items() >= {"sub": "ada", "tenant": "fashion", "scope": "orders:read"}.items()
    assert token.claims["iss"] == provider.issuer


async def _code(provider: Provider) -> str:
    """A code whose verifier is the example of RFC 7636 appendix B."""
    params = {
        "response_type": "code",
        "client_id": SPA,
        "redirect_uri": REDIRECT,
        "login_hint": "ada",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    page = await fetch(provider.port, "GET", f"/authorize?{urlencode(params)}")
    return dict(parse_qsl(urlsplit(page["location"]).query))["code"]


async def test_a_code_is_good_once_and_only_with_its_verifier() -> None:
    form = {"grant_type": "authorization_code", "redirect_uri": REDIRECT, "client_id": SPA}
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    async with provided(Provider(users=USERS)) as provider:
        code = await _code(provider)
        assert await ask_for_token(provider, {**form, "code": code, "code_verifier": verifier})
        for wrong in ({"code": code}, {"code_verifier": verifier[:-1]}, {"redirect_uri": "https://x.example/"}):
            with pytest.raises(TokenError, match="invalid_grant"):
                fresh = {"code": await _code(provider), "code_verifier": verifier}
                await ask_for_token(provider, {**form, **fresh, **wrong})


async def test_a_refresh_token_is_good_once() -> None:
    async with provided(Provider(users=USERS)) as provider:
        granted = await signed_in(provider, "ada", "orders:read")
        form = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"], "client_id": SPA}
        again = await ask_for_token(provider, form)
        assert again["scope"] == "orders:read"
        assert again["refresh_token"] != granted["refresh_token"]
        with pytest.raises(TokenError, match="invalid_grant"):
            await ask_for_token(provider, form)


async def test_a_service_gets_a_token_by_its_secret_only() -> None:
    form = {"grant_type": "client_credentials", "scope": "orders:write"}
    async with provided(Provider(users=USERS, services={"batch": "s3cret"})) as provider:
        right = {"authorization": f"Basic {b64encode(b'batch:s3cret').decode()}"}
        assert (await ask_for_token(provider, form, right))["scope"] == "orders:write"
        with pytest.raises(TokenError, match="invalid_client"):
            await ask_for_token(provider, form, {"authorization": f"Basic {b64encode(b'batch:x').decode()}"})
        with pytest.raises(TokenError, match="invalid_client"):
            await ask_for_token(provider, form)


async def test_an_unknown_user_gets_no_code() -> None:
    async with provided(Provider(users=USERS)) as provider:
        with pytest.raises(TokenError, match="invalid_request"):
            await signed_in(provider, "mallory")


def test_a_rotated_key_set_keeps_the_number_of_old_keys_that_is_asked_for() -> None:
    provider = Provider(users=USERS)
    before = provider.key_set()
    provider.rotate()
    assert json.loads(before)["keys"][0] in json.loads(provider.key_set())["keys"]
    provider.rotate(keep=0)
    assert len(json.loads(provider.key_set())["keys"]) == 1
