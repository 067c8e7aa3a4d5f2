"""``auth/jwt/token_cache.py``: its bounds, in entries and in bytes, with very many tokens (UMBEL_SOAK=1: a million)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from tests.support.auth.tokens import CLAIMS, ISSUER, NOW, jwk, key_set, private_key
from tests.support.soak import SOAK
from umbel.auth.jwt.token_cache import BYTES_PER_ENTRY, TokenCache, VerifiedToken, estimated_size, expiry_of
from umbel.core.identity import Identity

TOKENS = 1_000_000 if SOAK else 100_000
KEYS = key_set(jwk(private_key("ES256")), algorithms=("ES256",))


def entry(claims: dict[str, Any], payload: bytes = b" " * 200, *, expires: float = NOW + 300) -> VerifiedToken:
    identity = Identity("jwt", "users", claims.get("sub"), (), claims)
    return VerifiedToken(identity, ISSUER, KEYS, expires, 60.0, estimated_size(payload, claims))


def test_very_many_tokens_stay_within_the_bound_and_the_newest_are_kept() -> None:
    cache = TokenCache(1000)
    for number in range(TOKENS):
        cache.add(b"%032d" % number, entry({**CLAIMS, "jti": number}))

    assert len(cache) == 1000
    assert cache.get(b"%032d" % (TOKENS - 1), NOW, 0.0) is not None
    assert cache.get(b"%032d" % (TOKENS - 1000), NOW, 0.0) is not None
    assert cache.get(b"%032d" % (TOKENS - 1001), NOW, 0.0) is None
    assert 0 < cache.bytes <= 1000 * BYTES_PER_ENTRY


def test_large_tokens_are_bounded_by_their_bytes() -> None:
    cache = TokenCache(10)
    payload = b'{"a":[' + b",".join([b"[]"] * 4000) + b"]}"
    for number in range(200):
        cache.add(b"%032d" % number, entry(msgspec.json.decode(payload), payload))

    assert len(cache) == 0  # One of them is larger than the whole cache may be.

    cache = TokenCache(1000)
    for number in range(200):
        cache.add(b"%032d" % number, entry(msgspec.json.decode(payload), payload))
    assert 1 <= len(cache) < 40
    assert cache.bytes <= 1000 * BYTES_PER_ENTRY


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"https://id.example/","sub":"ada","exp":1800000300,"scope":"read write"}',
        b'{"a":[' + b",".join([b"[]"] * 4000) + b"]}",
        b'{"a":[' + b",".join([b"{}"] * 4000) + b"]}",
        b"{" + b",".join(b'"%d":{}' % number for number in range(1200)) + b"}",
        b"{" + b",".join(b'"%d":1.5' % number for number in range(1200)) + b"}",
        b'{"a":"' + "\U0001f600".encode() * 3000 + b'"}',
        b'{"a":"' + b"x" * 11_000 + "\U0001f600".encode() + b'"}',
        b'{"a":"' + rb"\ud83d\ude00" * 900 + b'"}',
        b'{"a":"' + b"x" * 11_000 + rb"\ud83d\ude00" + b'"}',
        b'{"a":' * 150 + b"1" + b"}" * 150,
        b'{"a":[' + b",".join(b"%d" % (10**15 + number) for number in range(700)) + b"]}",
        b'{"a":[' + b",".join(b'"%d"' % number for number in range(1500)) + b"]}",
    ],
    ids=range(12),
)
def test_the_estimated_size_is_not_below_the_real_one(payload: bytes) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [msgspec.json.decode(payload) for _ in range(10)]
        used = (tracemalloc.get_traced_memory()[0] - before) / 10
    finally:
        tracemalloc.stop()

    assert used <= estimated_size(payload, kept[0])


def test_an_entry_ends_with_the_token_or_after_a_minute() -> None:
    cache = TokenCache(10)
    for digest, wall, now in ((b"a", NOW + 300, 0.0), (b"b", NOW, 60.0)):
        cache.add(digest, entry(dict(CLAIMS)))
        assert cache.get(digest, wall, now) is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_a_cache_of_no_entries_keeps_nothing() -> None:
    cache = TokenCache(0)
    cache.add(b"a", entry(dict(CLAIMS)))

    assert (len(cache), cache.bytes) == (0, 0)


def test_a_token_that_is_added_again_is_counted_once() -> None:
    cache = TokenCache(10)
    for _ in range(3):
        cache.add(b"a", entry(dict(CLAIMS)))

    assert (len(cache), cache.bytes) == (1, entry(dict(CLAIMS)).size)


@pytest.mark.parametrize("text", ["", "\ud800", "\xe9", "a" * 10**6])
def test_every_text_has_a_digest(text: str) -> None:
    assert len(TokenCache.digest(text)) == 32


@pytest.mark.parametrize(
    ("exp", "expires"),
    [(None, float("inf")), (NOW + 10, NOW + 70), (int(NOW), NOW + 60), (10**400, NOW + 3600), (1e300, NOW + 3600)],
)
def test_the_expiry_is_a_finite_number_or_an_hour_away(exp: Any, expires: float) -> None:
    assert expiry_of(exp, 60.0, NOW) == expires
