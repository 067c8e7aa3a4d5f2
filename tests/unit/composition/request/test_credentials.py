"""The names and bodies that count as a credential of the client."""

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
def test_names_that_count_as_a_credential(name: str) -> None:
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
def test_names_that_do_not_count_as_a_credential(name: str) -> None:
    assert not is_credential(name)


def test_a_whole_body_is_a_credential_if_the_gateway_has_none_of_its_own() -> None:
    assert carries_credential([], body=True, own=False)
    assert not carries_credential([], body=True, own=True)
    assert not carries_credential(["page"], body=False, own=False)
    assert carries_credential(["*"], body=False, own=True)
