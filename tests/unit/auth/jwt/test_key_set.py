"""``auth/jwt/key_set.py``: which keys are used, for which algorithms, and which are tried for a token."""

from __future__ import annotations

import datetime
import warnings
from itertools import count
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tests.support.auth.tokens import encoded, jwk, jwks, key_set, private_key, sign
from umbel.auth.jwt.base64url import decode_canonical
from umbel.auth.jwt.key_set import KEYS_MAX, KEYS_TRIED_MAX, SIZE_MAX, BadKeySetError, KeySet, read_key_set

PUBLIC = ("RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA")
RSA, EC, OKP, OCT = (private_key(name) for name in ("RS256", "ES256", "EdDSA", "HS256"))


def refused(content: bytes, algorithms: tuple[str, ...] = PUBLIC, *, remote: bool = False) -> str:
    with pytest.raises(BadKeySetError) as raised:
        read_key_set(content, algorithms, remote=remote)
    return str(raised.value)


def why_left_out(members: dict[str, Any], algorithms: tuple[str, ...] = PUBLIC, *, remote: bool = False) -> str:
    """Read a set with the key and a good one."""
    found = read_key_set(jwks(members, jwk(OCT if "HS256" in algorithms else EC)), algorithms, remote=remote)
    (reason,) = found.left_out
    assert len(found.keys) == 1
    assert reason.startswith("key 1 is left out: ")
    return reason


def parts_of(token: str) -> tuple[bytes, bytes]:
    signing_input, _, signature = token.encode().rpartition(b".")
    return signing_input, decode_canonical(signature)


def verifies(keys: KeySet, token: str, algorithm: str, kid: str | None = None) -> bool:
    return any(key.verifies(algorithm, *parts_of(token)) for key in keys.candidates(kid, algorithm))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"])
def test_a_public_key_verifies_what_its_private_key_signs(algorithm: str) -> None:
    signer = private_key(algorithm)
    keys = key_set(jwk(signer), algorithms=(algorithm,), remote=True)

    assert verifies(keys, sign(signer, algorithm), algorithm)
    assert not verifies(keys, sign(private_key(algorithm, 1), algorithm), algorithm)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_of_a_file_verifies(algorithm: str) -> None:
    keys = key_set(jwk(OCT), algorithms=(algorithm,))

    assert verifies(keys, sign(OCT, algorithm), algorithm)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (jwk(RSA, use="enc"), '"use"'),
        (jwk(RSA, use=["sig"]), '"use"'),
        (jwk(RSA, key_ops=["encrypt"]), '"key_ops"'),
        (jwk(RSA, key_ops="verify"), '"key_ops"'),
        (jwk(RSA, key_ops=["verify"] * 99), '"key_ops"'),
        (jwk(RSA, alg="RS512"), '"alg"'),
        (jwk(RSA, alg="ES256"), '"alg"'),
        (jwk(RSA, alg="RSA-OAEP"), '"alg"'),
        (jwk(RSA, alg=1), '"alg"'),
        (jwk(RSA, kid=7), '"kid"'),
        (jwk(RSA, n=None), '"n"'),
        (jwk(RSA, e=7), '"e"'),
        (jwk(RSA, n="!"), '"n"'),
        (jwk(RSA, n="AQAB"), "17 bits"),
        (jwk(RSA, n="_" * 1500), "9000 bits"),
        (jwk(RSA, e="AQ"), "not valid"),
        (jwk(RSA, d="AQAB"), "private part"),
        (jwk(EC, d="AQAB"), "private part"),
        (jwk(EC, y=jwk(EC)["x"]), "not valid"),
        (jwk(EC, crv="P-384"), "not valid"),
        (jwk(EC, crv="P-521"), "fits none"),
        (jwk(EC, crv="secp256k1"), "fits none"),
        (jwk(OKP, crv="X25519"), "fits none"),
        (jwk(OKP, x="AAAA"), "not valid"),
        (jwk(OCT), "fits none"),
        ({"kty": "AKP", "alg": "ML-DSA-44"}, "unknown"),
        ({"kty": ["RSA"]}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_key_that_must_not_verify_is_left_out_with_a_reason(members: dict[str, Any], reason: str) -> None:
    assert reason in why_left_out(members)


def test_a_key_of_a_set_that_is_no_object_is_left_out() -> None:
    found = read_key_set(jwks(1, None, [], "x", jwk(EC)), PUBLIC, remote=True)

    assert len(found.left_out) == 4


def test_a_secret_of_a_remote_set_is_left_out() -> None:
    assert "secret" in why_left_out(jwk(OCT), remote=True)
    assert "no usable key" in refused(jwks(jwk(OCT)), ("HS256",), remote=True)


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 31), ("HS384", 47), ("HS512", 63)])
def test_a_secret_shorter_than_the_hash_is_left_out(algorithm: str, size: int) -> None:
    short = OctKey.generate_key(size * 8)

    assert "shorter" in refused(jwks(jwk(short)), (algorithm,))


def test_a_secret_verifies_only_the_algorithms_that_it_is_long_enough_for() -> None:
    (key,) = key_set(jwk(OctKey.generate_key(384)), algorithms=("HS256", "HS384", "HS512")).keys

    assert key.algorithms == {"HS256", "HS384"}


def test_an_rsa_key_under_2048_bits_is_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = RSAKey.generate_key(1024)

    assert "1024 bits" in why_left_out(jwk(weak))
    assert "1024 bits" in refused(weak.as_pem(private=False))


def test_a_key_with_its_own_alg_verifies_only_that_one() -> None:
    keys = key_set(jwk(RSA, alg="RS384"), algorithms=PUBLIC)

    assert keys.keys[0].algorithms == {"RS384"}
    assert keys.candidates(None, "RS256") == []


def test_a_public_key_never_verifies_an_hmac() -> None:
    pem = RSA.as_pem(private=False)
    keys = read_key_set(pem, ("RS256", "HS256"), remote=False)
    forged = sign(OctKey(pem, {"kty": "oct", "k": "AAAA"}), "HS256")

    assert keys.candidates(None, "HS256") == []
    assert not keys.keys[0].verifies("HS256", *parts_of(forged))
    assert "no usable key" in refused(pem, ("HS256",))


def test_a_secret_that_is_a_public_key_is_left_out() -> None:
    assert "not valid" in why_left_out({"kty": "oct", "k": encoded(RSA.as_pem(private=False))}, ("HS256",))


def test_a_token_with_kid_is_verified_by_the_keys_of_that_id_only() -> None:
    other = private_key("ES256", 1)
    keys = key_set(jwk(EC, kid="a"), jwk(other, kid="b"), jwk(RSA, kid="b"), algorithms=PUBLIC)

    assert [key.key_id for key in keys.candidates("b", "ES256")] == ["b"]
    assert not verifies(keys, sign(EC, "ES256"), "ES256", "b")
    assert verifies(keys, sign(EC, "ES256"), "ES256")
    assert keys.has("a")
    assert not keys.has("c")


def test_keys_that_share_an_id_are_all_tried() -> None:
    other = private_key("ES256", 1)
    keys = key_set(jwk(EC, kid="a"), jwk(other, kid="a"), algorithms=PUBLIC)

    assert verifies(keys, sign(EC, "ES256"), "ES256", "a")
    assert verifies(keys, sign(other, "ES256"), "ES256", "a")


def test_keys_without_id_are_tried_for_a_kid_that_no_key_has() -> None:
    keys = key_set(jwk(EC), jwk(private_key("ES256", 1), kid="b"), algorithms=PUBLIC)

    assert verifies(keys, sign(EC, "ES256"), "ES256", "c")
    assert not verifies(keys, sign(EC, "ES256"), "ES256", "b")


def test_at_most_ten_keys_are_tried() -> None:
    keys = key_set(*[jwk(EC, kid=str(number)) for number in range(KEYS_MAX)], algorithms=PUBLIC)

    assert len(keys.keys) == KEYS_MAX
    assert len(keys.candidates(None, "ES256")) == KEYS_TRIED_MAX


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither"),
        (b"<html>", "neither"),
        (b"[]", '"keys"'),
        (b"{}", '"keys"'),
        (b'{"keys":{}}', '"keys"'),
        (b'{"keys":[]}', "no usable key"),
        (b'{"keys":' + b"[" * 900 + b"]" * 900 + b"}", "neither"),
        (b" " * (SIZE_MAX + 1), "larger than 256 KiB"),
        (jwks(*[{}] * (KEYS_MAX + 1)), "more than 100"),
        (b"-----BEGIN PUBLIC KEY-----\n", "no complete block"),
        (b"-----BEGIN A-----\nx\n-----END A-----\n" * (KEYS_MAX + 1), "more than 100"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not valid"),
        (b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n", "neither a public key"),
        (EC.as_pem(private=True), "private key"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_text_without_usable_keys_is_refused(content: bytes, reason: str) -> None:
    assert reason in refused(content)


def test_pem_from_the_network_is_refused() -> None:
    assert "neither" in refused(EC.as_pem(private=False), remote=True)


def certificate(key: ECKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    begin = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key, 1, begin, begin + datetime.timedelta(days=1))
    return builder.sign(key.private_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_public_keys_and_certificates_of_one_pem_file_are_read() -> None:
    second = ECKey.generate_key("P-256")
    content = b"text before\n" + RSA.as_pem(private=False) + certificate(second) + OKP.as_pem(private=False)

    keys = read_key_set(content, PUBLIC, remote=False)

    assert [sorted(key.algorithms) for key in keys.keys] == [["PS256", "RS256", "RS384"], ["ES256"], ["EdDSA"]]
    assert verifies(keys, sign(second, "ES256"), "ES256", "any")


def test_a_private_key_beside_public_ones_is_left_out_and_reported() -> None:
    keys = read_key_set(EC.as_pem(private=False) + RSA.as_pem(private=True), PUBLIC, remote=False)

    assert keys.left_out == ("block 2 is left out: it is a private key; write only the public one.",)


def test_nothing_of_a_key_is_in_its_texts() -> None:
    keys = key_set(jwk(OCT, kid="k"), algorithms=("HS256",))
    secret = jwk(OCT)["k"]

    assert secret not in repr(keys) + repr(keys.keys) + str(keys.keys[0].public)
    assert secret not in refused(jwks(jwk(OCT, use="enc")), ("HS256",))


def test_sets_are_equal_if_keys_ids_and_algorithms_are() -> None:
    one = key_set(jwk(EC, kid="a"), algorithms=PUBLIC)

    assert one.equals(key_set(jwk(EC, kid="a"), algorithms=PUBLIC))
    assert not one.equals(key_set(jwk(EC, kid="b"), algorithms=PUBLIC))
    assert not one.equals(key_set(jwk(private_key("ES256", 1), kid="a"), algorithms=PUBLIC))
    assert not one.equals(None)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_without_its_leading_zero_verifies_nothing(algorithm: str) -> None:
    signer = private_key(algorithm)
    (key,) = key_set(jwk(signer), algorithms=(algorithm,)).keys
    # One of 256 begins with a zero.
    signed = (parts for number in count() if (parts := parts_of(sign(signer, algorithm, number=number)))[1][0] == 0)
    text, signature = next(signed)

    assert key.verifies(algorithm, text, signature)
    assert not key.verifies(algorithm, text, signature[1:])
    assert not key.verifies(algorithm, text, b"\0" + signature)


def test_an_unknown_algorithm_or_a_strange_signature_verifies_nothing() -> None:
    (key,) = key_set(jwk(EC), algorithms=("ES256",)).keys

    for signature in (b"", b"\0" * 64, b"\xff" * 64, b"x" * 100_000):
        assert not key.verifies("ES256", b"a", signature)
        assert not key.verifies("none", b"a", signature)


def test_ed448_is_accepted_for_eddsa() -> None:
    signer = OKPKey.generate_key("Ed448")

    assert verifies(key_set(jwk(signer), algorithms=("EdDSA",)), sign(signer, "EdDSA"), "EdDSA")
