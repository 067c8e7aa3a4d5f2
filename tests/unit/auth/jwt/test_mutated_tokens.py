"""Tokens that are changed in many ways: none is accepted. 10,000 of them, with UMBEL_SOAK=1 100,000."""

from __future__ import annotations

import json
import random
from base64 import urlsafe_b64decode
from collections.abc import Callable

import pytest

from tests.support.auth.tokens import ISSUER, FixedKeys, encoded, jwk, key_set, private_key, sign, verifier
from tests.support.soak import SOAK
from umbel.auth.authenticator import Refusal
from umbel.auth.jwt.library import KEY_OF
from umbel.core.identity import Identity

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "HS256")
MUTATIONS = (100_000 if SOAK else 10_000) // len(ALGORITHMS)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def flip_character(rng: random.Random, text: str, _: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(ALPHABET + ".=+/ \n\0~\xe9") + text[at + 1 :]


def flip_bit(rng: random.Random, text: str, _: str) -> str:
    """Change a bit of a decoded part, and encode it canonically."""
    parts = text.split(".")
    at = rng.randrange(3)
    content = bytearray(decoded(parts[at]))
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    parts[at] = encoded(bytes(content))
    return ".".join(parts)


def change_last_character(rng: random.Random, text: str, _: str) -> str:
    """Another last character of a part may decode to the same bytes."""
    parts = text.split(".")
    at = rng.randrange(3)
    parts[at] = parts[at][:-1] + rng.choice(ALPHABET)
    return ".".join(parts)


def change_case(rng: random.Random, text: str, _: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at:].swapcase() if rng.random() < 0.5 else text[:at] + text[at].swapcase() + text[at + 1 :]


def truncate(rng: random.Random, text: str, _: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] if rng.random() < 0.5 else text[at + 1 :]


def insert(rng: random.Random, text: str, _: str) -> str:
    at = rng.randrange(len(text) + 1)
    return (
        text[:at]
        + rng.choice([*ALPHABET, ".", "=", "==", " ", "\r\n", "\t", "%41", "\0", "AAAA", "\ufeff"])
        + text[at:]
    )


def swap_parts(rng: random.Random, text: str, other: str) -> str:
    """Put parts of two tokens of one issuer together, or the parts of one in another order."""
    parts = [rng.choice(pair) for pair in zip(text.split("."), other.split("."), strict=True)]
    if rng.random() < 0.5:
        rng.shuffle(parts)
    return ".".join(parts)


def swap_algorithm(rng: random.Random, text: str, _: str) -> str:
    _, payload, signature = text.split(".")
    algorithm = rng.choice([*KEY_OF, "none", "None", "", "HS1", "ES256K", "Ed25519"])
    return f"{encoded({'alg': algorithm, 'typ': rng.choice(['JWT', 'at+jwt'])})}.{payload}.{signature}"


def replace_claims(rng: random.Random, text: str, _: str) -> str:
    header, payload, signature = text.split(".")
    claims = json.loads(decoded(payload))
    claims[rng.choice(["sub", "scope", "exp", "admin"])] = rng.choice(["root", "admin", 4e9, True])
    return f"{header}.{encoded(claims)}.{rng.choice([signature, '', encoded(bytes(len(decoded(signature))))])}"


def resize_signature(rng: random.Random, text: str, _: str) -> str:
    signing_input, _, signature = text.rpartition(".")
    content = decoded(signature)
    zeros = bytes(rng.randrange(1, 9))
    return f"{signing_input}.{encoded(rng.choice([zeros + content, content + zeros, content[len(zeros) :], b'']))}"


CHANGES: tuple[Callable[[random.Random, str, str], str], ...] = (
    flip_character,
    flip_bit,
    change_last_character,
    change_case,
    truncate,
    insert,
    swap_parts,
    swap_algorithm,
    replace_claims,
    resize_signature,
)


def is_twin(text: str, original: str) -> bool:
    """Whether two tokens have the signatures (r, s) and (r, -s) of ECDSA, which are both valid by the standard."""
    if text.rpartition(".")[0] != original.rpartition(".")[0]:
        return False
    one, two = (int.from_bytes(decoded(each.rpartition(".")[2])[32:]) for each in (text, original))
    return one + two == P256_ORDER


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_changed_token_is_accepted(algorithm: str) -> None:
    rng = random.Random(f"{algorithm} 1")
    signer = private_key(algorithm)
    # All algorithms of the kind are accepted and the memory is used, so that only the key decides.
    algorithms = tuple(name for name in KEY_OF if name.startswith("HS") == (algorithm == "HS256"))
    by = verifier({ISSUER: FixedKeys(key_set(jwk(signer), algorithms=algorithms))}, *algorithms, cache_max=100)
    good = {sign(signer, algorithm, sub=name, scope="read") for name in ("ada", "bob")}
    text, other = good
    assert all(isinstance(by.verify(each), Identity) for each in good)

    accepted = []
    for _ in range(MUTATIONS):
        changed = rng.choice(CHANGES)(rng, text, other)
        if changed and rng.random() < 0.2:
            changed = rng.choice((flip_character, truncate, insert))(rng, changed, other)
        found = by.verify(changed)
        if not isinstance(found, Refusal) and changed not in good and not is_twin(changed, text):
            accepted.append(changed)

    assert accepted == []
    assert by.misses > MUTATIONS * 0.8  # Few changes result in one of the good tokens.


def test_the_twin_of_a_signature_of_ecdsa_is_valid_by_the_standard() -> None:
    signer = private_key("ES256")
    text = sign(signer, "ES256")
    signing_input, _, signature = text.rpartition(".")
    content = decoded(signature)
    twin = content[:32] + (P256_ORDER - int.from_bytes(content[32:])).to_bytes(32)
    by = verifier(key_set(jwk(signer), algorithms=("ES256",)), "ES256")

    assert is_twin(f"{signing_input}.{encoded(twin)}", text)
    assert isinstance(by.verify(f"{signing_input}.{encoded(twin)}"), Identity)
