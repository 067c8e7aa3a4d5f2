"""The token bucket, on times that the test gives."""

from __future__ import annotations

from umbel.policy.token_bucket import TokenBucket


def test_a_bucket_empties_at_once_and_refills_up_to_its_size() -> None:
    bucket = TokenBucket(3, 2)
    assert [bucket.spend(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.spend(0.5) for _ in range(2)] == [True, False]
    assert [bucket.spend(1000) for _ in range(4)] == [True, True, True, False]


def test_a_grant_adds_tokens_up_to_the_size() -> None:
    bucket = TokenBucket(3, 2)
    assert [bucket.spend(0) for _ in range(4)] == [True, True, True, False]
    bucket.grant(2)
    assert [bucket.spend(0) for _ in range(3)] == [True, True, False]
    bucket.grant(100)
    assert [bucket.spend(0) for _ in range(4)] == [True, True, True, False]
