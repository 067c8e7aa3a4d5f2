"""``auth/jwt/compact.py``: which texts are tokens, and which headers are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.auth.tokens import encoded
from umbel.auth.jwt.compact import TOKEN_MAX, BadTokenError, media_type, read_claims, read_token

TYPES = ("jwt", "at+jwt")


def token(header: object = None, claims: object = None, signature: bytes = b"s" * 32) -> str:
    header = {"alg": "ES256"} if header is None else header
    return f"{encoded(header)}.{encoded({'sub': 'ada'} if claims is None else claims)}.{encoded(signature)}"


def why(text: str) -> str:
    with pytest.raises(BadTokenError) as raised:
        read_claims(read_token(text, ("ES256",), TYPES).payload)
    assert str(raised.value).isascii()
    assert '"' not in str(raised.value)
    return str(raised.value)


def test_the_parts_of_a_token_are_read() -> None:
    text = token({"alg": "ES256", "kid": "k", "typ": "JWT"}, {"sub": "ada"})

    found = read_token(text, ("ES256",), TYPES)

    assert (found.algorithm, found.key_id, found.signature) == ("ES256", "k", b"s" * 32)
    assert read_claims(found.payload) == {"sub": "ada"}
    assert found.signing_input.decode() == text.rpartition(".")[0]


@pytest.mark.parametrize("text", ["", ".", "..", "...", "a", "a.b", f"{token()}.", f"{token()}.a", f".{token()}"])
def test_a_text_without_exactly_three_usable_parts_is_refused(text: str) -> None:
    assert "token" in why(text)


def test_a_token_beyond_16_kib_is_refused_before_it_is_decoded() -> None:
    assert why("a" * (TOKEN_MAX + 1)) == "The token is longer than 16384 characters."


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("change", ["{}=", "{}==", " {}", "{}\n", "\t{}", "{}+", "{}/", "{}*", "{}\xe9", "{}\0"])
def test_a_part_with_a_foreign_character_is_refused(part: int, change: str) -> None:
    parts = token().split(".")
    parts[part] = change.format(parts[part])

    reason = why(".".join(parts))

    assert ("base64url" in reason) == change.isascii()


def test_unused_bits_of_the_last_character_must_be_zero() -> None:
    text = token(signature=b"\0" * 32)
    assert text.endswith("A")

    for last in "BCD":
        assert "base64url" in why(text[:-1] + last)


@pytest.mark.parametrize("algorithm", ["none", "None", "", "es256", "HS256", None, 1, ["ES256"], {"a": 1}])
def test_an_algorithm_that_is_not_configured_is_refused(algorithm: Any) -> None:
    assert why(token({"alg": algorithm})) == "The algorithm of the token is not accepted."


def test_the_algorithm_is_checked_before_anything_else_of_the_token() -> None:
    text = f"{encoded({'alg': 'none', 'crit': ['b64']})}.!!!.!!!"

    assert why(text) == "The algorithm of the token is not accepted."


@pytest.mark.parametrize("header", [b"", b"[]", b"1", b"null", b"{", b'{"alg":"ES256"}x', b"\xff"])
def test_a_header_that_is_no_json_object_is_refused(header: bytes) -> None:
    assert why(token(header)) == "The header of the token is not a JSON object."


@pytest.mark.parametrize("claims", [b"", b"[]", b'"a"', b"NaN", b'{"a":NaN}', b'{"a":1e9'])
def test_claims_that_are_no_json_object_are_refused(claims: bytes) -> None:
    assert why(token(claims=claims)) == "The payload of the token is not a JSON object."


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 200 + b"]" * 200,
        b"[" * 4000 + b"]" * 4000,
        b"1" * 4301,
        b"-" + b"1" * 4300,
        b"1e309",
        b'["%s", 1e309]' % (b"x" * 5000),
    ],
    ids=["deep", "deeper than the stack", "digits", "negative", "exponent", "long with an exponent"],
)
def test_header_and_claims_beyond_a_bound_are_refused_as_such(value: bytes) -> None:
    reason = "exceeds a bound: it is nested more than 200 deep, or has a number that is too large."
    members = b'{"alg":"ES256","a":%s}' % value

    assert why(token(claims=members)) == f"The payload of the token {reason}"
    assert why(token(members)) == f"The header of the token {reason}"


@pytest.mark.parametrize(
    "value", [b"[" * 199 + b"]" * 199, b"1" * 4300, b"1.7e308"], ids=["deep", "digits", "exponent"]
)
def test_claims_at_a_bound_are_read(value: bytes) -> None:
    assert "a" in read_claims(b'{"a":%s}' % value)


@pytest.mark.parametrize("member", ["crit", "b64"])
@pytest.mark.parametrize("value", [[], ["exp"], None, True, False, "b64"])
def test_critical_extensions_and_b64_are_refused_with_any_value(member: str, value: Any) -> None:
    assert "critical" in why(token({"alg": "ES256", member: value}))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+JWT", "application/jwt", "APPLICATION/AT+JWT"])
def test_typ_is_compared_without_case_and_application(typ: str) -> None:
    assert read_token(token({"alg": "ES256", "typ": typ}), ("ES256",), TYPES).algorithm == "ES256"


@pytest.mark.parametrize("typ", ["", "dpop+jwt", "JWT ", "text/jwt", None, 1, ["JWT"]])
def test_another_typ_is_refused(typ: Any) -> None:
    assert why(token({"alg": "ES256", "typ": typ})) == "The type of the token is not accepted."


def test_a_token_without_typ_counts_as_jwt() -> None:
    assert read_token(token(), ("ES256",), (media_type("JWT"),)).key_id is None
    with pytest.raises(BadTokenError, match="type"):
        read_token(token(), ("ES256",), (media_type("at+jwt"),))


@pytest.mark.parametrize("key_id", [1, True, [], {}, 1.5])
def test_a_kid_that_is_no_text_is_refused(key_id: Any) -> None:
    assert "key id" in why(token({"alg": "ES256", "kid": key_id}))


def test_of_members_with_one_name_the_last_one_counts() -> None:
    assert read_token(token(b'{"alg":"none","alg":"ES256"}'), ("ES256",), TYPES).algorithm == "ES256"
    assert "algorithm" in why(token(b'{"alg":"ES256","alg":"none"}'))
