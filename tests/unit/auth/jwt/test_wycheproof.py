"""The vectors of Project Wycheproof: whether the signature of each token is verified as they expect."""

from __future__ import annotations

import json

import pytest

from tests.support.auth.tokens import jwks
from tests.support.auth.wycheproof import MISSING, Vector, vectors
from umbel.auth.jwt.compact import BadTokenError, read_token
from umbel.auth.jwt.key_set import BadKeySetError, read_key_set
from umbel.auth.jwt.library import KEY_OF
from umbel.config.schema.access.auth import SYMMETRIC

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

_OF_KEY = "the alg of the key names another algorithm than that of the token; such a key verifies only its own"
_SAME_TEXT = "the padding is lost: the text is that of vector 357, which is valid"
_FOREIGN = "a character outside of base64url is refused, though the vector expects that it is skipped"
_ROCA = "the signature is right; that the key's generator was weak is the issuer's matter"
_MIXED = "a set may have secrets and public keys; the configuration separates their algorithms"

DEVIATIONS = {
    ("json_web_crypto", 46): _ROCA,
    ("json_web_crypto", 47): _MIXED,
    ("json_web_key", 1): _MIXED,
    ("json_web_key", 4): "keys may share an id (RFC 7517 section 4.5); all of them are tried",
    ("json_web_key", 7): _ROCA,
    ("json_web_signature", 346): _OF_KEY,
    ("json_web_signature", 347): _OF_KEY,
    ("json_web_signature", 350): _OF_KEY,
    ("json_web_signature", 351): _OF_KEY,
    ("json_web_signature", 367): _SAME_TEXT,
    ("json_web_signature", 370): _SAME_TEXT,
    ("json_web_signature", 372): _FOREIGN,
    ("json_web_signature", 373): _FOREIGN,
}
"""The vectors with another result here, and why."""


def is_verified(vector: Vector) -> bool:
    symmetric = any(key.get("kty") == "oct" for key in vector.keys)
    algorithms = [name for name in KEY_OF if (name in SYMMETRIC) == symmetric]
    # A few vectors are tokens in the JSON serialization.
    text = vector.token if isinstance(vector.token, str) else json.dumps(vector.token)
    try:
        keys = read_key_set(jwks(*vector.keys), algorithms, remote=False)
        token = read_token(text, algorithms, ("jwt",))
    except (BadKeySetError, BadTokenError):
        return False
    tried = keys.candidates(token.key_id, token.algorithm)
    return any(key.verifies(token.algorithm, token.signing_input, token.signature) for key in tried)


@pytest.mark.parametrize(
    ("kind", "number"), [("json_web_crypto", 49), ("json_web_key", 26), ("json_web_signature", 401)]
)
def test_every_vector_has_its_expected_result_or_a_reason(kind: str, number: int) -> None:
    found = list(vectors(kind))
    different = {(kind, each.number) for each in found if is_verified(each) != each.valid}

    assert len(found) == number
    assert different == {place for place in DEVIATIONS if place[0] == kind}
