"""The cost of verifying tokens, and the memory of those that are remembered: ``make bench-auth``, a minute or two.

Tokens have the claims of an access token of a common provider (some 700 characters). The time is the CPU time of
``JwtAuthenticator.authenticate`` for one request: *cold*, with a token that is not remembered, *cached*, and *refused*,
with a changed payload. The memory is that of a million different verified tokens, as the kernel counts it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from umbel.auth.authenticator import Presented
from umbel.auth.jwt.authenticator import JwtAuthenticator
from umbel.auth.jwt.base64url import decode_canonical
from umbel.config.schema.access.auth import JwtAuth
from umbel.core.identity import Identity

ROUNDS, ROUND_S = 15, 0.05
TOKENS = 1_000_000
COLD_MAX_US = {"RS256": 100.0, "ES256": 150.0}
ISSUER = "https://id.example/"
KEYS: dict[str, Callable[[], Key]] = {
    "RS256": lambda: RSAKey.generate_key(2048),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "HS256": lambda: OctKey.generate_key(256),
}


def encoded(content: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def token(algorithm: str, key: Key, number: int = 0) -> str:
    """An access token; another one for each number."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": f"8a1f6c2e-{number:012d}",
        "aud": ["shop", "account"],
        "azp": "web",
        "exp": now + 3600,
        "iat": now,
        "jti": f"{number:032d}",
        "sid": "5b2d4c9e-3f1a-4d6b-9c8e-7a6f5e4d3c2b",
        "scope": "openid profile email orders:read",
        "email": "ada@example.org",
        "name": "Ada Lovelace",
        "realm_access": {"roles": ["customer", "offline_access"]},
    }
    header = {"alg": algorithm, "typ": "JWT", "kid": "signing-key-2026"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    model = next(each for each in JWS_ALGORITHMS if each.name == algorithm)
    return f"{text}.{encoded(model.sign(text.encode(), key))}"


def authenticator(algorithm: str, key: Key, cache: int) -> JwtAuthenticator:
    """An authenticator whose only key is ``key``."""
    members = {**key.as_dict(private=algorithm == "HS256"), "kid": "signing-key-2026"}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "keys.json"
        path.write_text(json.dumps({"keys": [members]}), encoding="utf-8")
        issuer = {"iss": ISSUER, "keys": str(path), "audience": ["shop"]}
        keys = {"kind": "jwt", "algorithms": [algorithm], "issuers": [issuer], "cache": cache}
        return JwtAuthenticator("users", JwtAuth.model_validate(keys), clock=time.monotonic)


def cost_us(users: JwtAuthenticator, text: str, *, accepted: bool) -> float:
    """The least CPU microseconds of authenticating a request with a token."""
    presented = Presented({"authorization": f"Bearer {text}"}, {}, b"")
    assert isinstance(users.authenticate(presented), Identity) == accepted
    authenticate, least = users.authenticate, float("inf")
    for _ in range(ROUNDS):
        done, began = 0, time.thread_time()
        while (used := time.thread_time() - began) < ROUND_S:
            for _ in range(100):
                authenticate(presented)
            done += 100
        least = min(least, used / done)
    return least * 1e6


def resident() -> int:
    """The resident bytes of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def bytes_per_token() -> tuple[float, int, int]:
    """Return the bytes per remembered token, how many there are, and their estimated bytes."""
    key = KEYS["HS256"]()
    users = authenticator("HS256", key, TOKENS)
    gc.collect()
    before = resident()
    for number in range(TOKENS):
        users.authenticate(Presented({"authorization": f"Bearer {token('HS256', key, number)}"}, {}, b""))
    found = users.statistics()
    return (resident() - before) / found.cached, found.cached, found.cached_bytes


def main() -> bool:
    warnings.simplefilter("ignore")  # joserfc says that RFC 9864 renames EdDSA.
    gc.disable()
    kept = True
    print("| algorithm | cold µs | cached µs | refused µs |")
    print("|---|---:|---:|---:|")
    for algorithm, make in KEYS.items():
        key = make()
        text = token(algorithm, key)
        header, payload, signature = text.split(".")
        changed = (
            f"{header}.{encoded(decode_canonical(payload.encode()).replace(b'customer', b'operator'))}.{signature}"
        )
        cold = cost_us(authenticator(algorithm, key, 0), text, accepted=True)
        cached = cost_us(authenticator(algorithm, key, 10), text, accepted=True)
        refused = cost_us(authenticator(algorithm, key, 10), changed, accepted=False)
        kept &= cold <= COLD_MAX_US.get(algorithm, float("inf"))
        print(f"| {algorithm} | {cold:.0f} | {cached:.1f} | {refused:.0f} |")
    gc.enable()
    each, number, estimated = bytes_per_token()
    print(f"\n{each:.0f} bytes per remembered token ({number} of {TOKENS}; estimated {estimated / number:.0f})")
    bars = ", ".join(f"{name} at most {most:.0f} µs" for name, most in COLD_MAX_US.items())
    print(f"\nbars: a cold token of {bars}: {'kept' if kept else 'MISSED'}")
    return kept


if __name__ == "__main__":
    sys.exit(not main())
