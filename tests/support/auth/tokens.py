"""Issuers that sign tokens, and verifiers that accept them, for tests."""

from __future__ import annotations

import json
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from umbel.auth.authenticator import Presented
from umbel.auth.jwt.key_set import KeySet, read_key_set
from umbel.auth.jwt.verifier import IssuerRules, Verifier

ISSUER = "https://id.example/"
NOW = 1_800_000_000.0
"""The time of the tests, in seconds since 1970."""
CLAIMS: Mapping[str, Any] = {"iss": ISSUER, "sub": "ada", "exp": NOW + 300, "iat": NOW, "aud": "shop"}
_MODELS = {model.name: model for model in JWS_ALGORITHMS}


@cache
def private_key(algorithm: str, number: int = 0) -> Key:
    """A key that signs with an algorithm; another one for each number."""
    if algorithm.startswith(("RS", "PS")):
        return RSAKey.generate_key(2048)
    if algorithm.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm])
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519")
    return OctKey.generate_key(512)


def jwk(key: Key, **members: Any) -> dict[str, Any]:
    """The public members of a key (the secret of a symmetric one), and others; a member that is None is left out."""
    found = {**key.as_dict(private=key.key_type == "oct"), **members}
    return {name: value for name, value in found.items() if value is not None}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def encoded(value: object) -> str:
    """A part of a token: base64url of bytes, or of a value as JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def sign(
    key: Key, algorithm: str, claims: object = CLAIMS, *, header: Mapping[str, Any] | None = None, **changed: Any
) -> str:
    """A token. ``changed`` replaces members of the claims, and leaves out those that are None."""
    if isinstance(claims, Mapping):
        claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    signing_input = f"{encoded({'alg': algorithm, **(header or {})})}.{encoded(claims)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signature = _MODELS[algorithm].sign(signing_input.encode(), key)
    return f"{signing_input}.{encoded(signature)}"


class FixedKeys:
    """Keys of an issuer that a test replaces."""

    renewable = True

    def __init__(self, key_set: KeySet | None) -> None:
        self.key_set = key_set


def key_set(*keys: Mapping[str, Any], algorithms: tuple[str, ...], remote: bool = False) -> KeySet:
    return read_key_set(jwks(*keys), algorithms, remote=remote)


def verifier(
    keys: KeySet | Mapping[str, FixedKeys] | None,
    *algorithms: str,
    audience: tuple[str, ...] = (),
    required: tuple[str, ...] = ("exp", "sub"),
    leeway: float = 60.0,
    cache_max: int = 0,
    wall: Callable[[], float] = lambda: NOW,
    clock: Callable[[], float] = lambda: 0.0,
    name: str = "users",
) -> Verifier:
    """A verifier of the tokens of ISSUER (or of several issuers), without a memory unless ``cache_max`` is given."""
    sources = keys if isinstance(keys, Mapping) else {ISSUER: FixedKeys(keys)}
    return Verifier(
        name,
        {issuer: IssuerRules(source, frozenset(audience)) for issuer, source in sources.items()},
        algorithms=frozenset(algorithms),
        types=frozenset({"at+jwt", "JWT"}),
        required=required,
        leeway=leeway,
        cache_max=cache_max,
        wall=wall,
        clock=clock,
    )


def bearer(token: str) -> Presented:
    """A request with a token in its Authorization field."""
    return Presented({"authorization": f"Bearer {token}"}, {}, b"")
