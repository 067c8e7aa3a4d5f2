"""Which names and bodies count as a credential of the client's."""

from __future__ import annotations

import pytest

from umbel.composition.request.credentials import carries_credential, is_credential


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Cookie",
        "x-api-key",
        "x_api_key",
        "apikey",
        "key",
        "access_token",
        "X-Goog-IAP-JWT-Assertion",
        "session_id",
        "password",
        "passwd",
        "x-amz-signature",
        "x-auth",
        "pwd",
        "user_pwd",
        "X-OTP",
        "sid",
        "DPoP",
    ],
)
def test_a_name_of_a_credential(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize(
    "name",
    [
        "accept-language",
        "page",
        "idempotency-key",
        "Idempotency_Key",
        "keyword",
        "author",
        "author_id",
        "n\xe9",
        "spin",
    ],
)
def test_a_name_of_something_else(name: str) -> None:
    assert not is_credential(name)


def test_a_whole_body_is_a_credential_if_the_gateway_has_none_of_its_own() -> None:
    assert carries_credential([], body=True, own=False)
    assert not carries_credential([], body=True, own=True)
    assert not carries_credential(["page"], body=False, own=False)
    assert carries_credential(["*"], body=False, own=True)
