"""The authenticator of tokens answers whatever a request presents, and never raises."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.auth.tokens import CLAIMS, ISSUER, FixedKeys, encoded, jwk, key_set, private_key, sign, verifier
from umbel.auth.authenticator import Presented, Refusal
from umbel.auth.jwt.key_set import BadKeySetError, read_key_set
from umbel.auth.jwt.library import KEY_OF
from umbel.auth.jwt.token_places import find_token, place_of
from umbel.core.identity import Identity

SECRET = private_key("HS256")
KEYS = key_set(jwk(SECRET, kid="k"), jwk(SECRET), algorithms=("HS256", "HS512"))
BY = verifier({ISSUER: FixedKeys(KEYS)}, "HS256", "HS512", cache_max=100)
PLACES = tuple(map(place_of, ("header", "cookie:c", "query:q")))

_LEAVES = st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "scp", "jti"])
MEMBERS = st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "k", "alg", "use"]), JSON)
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c"]), JSON)


def checked(token: str) -> Identity | Refusal:
    found = BY.verify(token)
    if isinstance(found, Refusal):
        assert found.reason.isascii()
        assert '"' not in found.reason
    else:
        assert isinstance(found.sub, str)
        assert all(isinstance(each, str) for each in found.scopes)
        assert len(set(found.scopes)) == len(found.scopes)
    assert BY.issuer_of(token) in (None, ISSUER)
    return found


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text_is_refused(text: str) -> None:
    assert isinstance(checked(text), Refusal)


@given(HEADERS, JSON, st.binary(max_size=70))
def test_any_unsigned_content_is_refused(header: Any, claims: Any, signature: bytes) -> None:
    header.setdefault("alg", "HS256")
    assert isinstance(checked(f"{encoded(header)}.{encoded(claims)}.{encoded(signature)}"), Refusal)


@given(JSON | st.binary())
def test_any_signed_payload_gets_an_answer(payload: Any) -> None:
    checked(sign(SECRET, "HS256", payload if isinstance(payload, bytes) else json.dumps(payload).encode()))


@given(st.dictionaries(NAMES, JSON), HEADERS)
def test_any_signed_claims_get_an_answer(claims: dict[str, Any], header: dict[str, Any]) -> None:
    header.pop("alg", None)
    checked(sign(SECRET, "HS256", json.dumps({**CLAIMS, **claims}).encode(), header=header))


@given(st.text(), st.text(), st.binary())
def test_any_request_has_at_most_one_token(field: str, cookie: str, query: bytes) -> None:
    for value in (field, f"Bearer {field}", f"bearer {field}, {cookie}"):
        found = find_token(Presented({"authorization": value}, {"c": cookie}, b"q=" + query), PLACES)
        if found is not None and isinstance(found.token, str):
            checked(found.token)


@given(JSON | st.lists(MEMBERS, max_size=3))
def test_any_key_set_is_read_or_refused(keys: Any) -> None:
    for content in (json.dumps({"keys": keys}).encode(), json.dumps(keys).encode()):
        for remote in (True, False):
            try:
                read_key_set(content, tuple(KEY_OF), remote=remote)
            except BadKeySetError as error:
                assert len(str(error)) < 1000


@given(st.binary() | st.text().map(lambda text: f"-----BEGIN PUBLIC KEY-----{text}-----END PUBLIC KEY-----".encode()))
def test_any_file_of_keys_is_read_or_refused(content: bytes) -> None:
    try:
        read_key_set(content, tuple(KEY_OF), remote=False)
    except BadKeySetError as error:
        assert len(str(error)) < 1000
