"""A split: the upstream of each key, the shares over many keys, and the keys that move when a share changes."""

from __future__ import annotations

import random

import pytest

from umbel.policy.split import Split

KEYS = [f"user-{number}" for number in range(10_000)]


def never() -> float:
    raise AssertionError("a request with a key is not split at random")


def chosen(split: Split) -> list[str]:
    return [split.choose(key, never) for key in KEYS]


@pytest.mark.parametrize(
    "shares", [{"v2": 0.1}, {"v2": 0.5}, {"v2": 0.01}, {"v2": 0.25, "v3": 0.25}, {"a": 0.1, "b": 0.2, "c": 0.3}]
)
def test_each_upstream_gets_its_share_of_10000_keys_within_one_percent(shares: dict[str, float]) -> None:
    found = chosen(Split("v1", shares))
    for upstream, share in {**shares, "v1": 1 - sum(shares.values())}.items():
        assert abs(found.count(upstream) / len(KEYS) - share) <= 0.01


def test_the_position_of_a_key_is_the_same_in_every_process() -> None:
    split = Split("v1", {"v2": 0.5})
    assert [round(split.position(key), 6) for key in ("user-1", "192.0.2.7", "ü\ud800")] == [
        0.083678,
        0.104428,
        0.722088,
    ]


def test_the_lowest_and_the_highest_position_belong_to_an_interval() -> None:
    split = Split("v1", {"v2": 0.5, "v3": 0.5})
    assert (split.at(0.0), split.at(0.5), split.at(1 - 2**-53)) == ("v2", "v3", "v3")
    assert {split.at(number / 1000) for number in range(1000)} == {"v2", "v3"}


def test_a_share_of_zero_gets_no_request_and_a_share_of_all_gets_each() -> None:
    assert set(chosen(Split("v1", {"v2": 0.0, "v3": 0.0}))) == {"v1"}
    assert set(chosen(Split("v1", {"v2": 1.0}))) == {"v2"}
    assert set(chosen(Split("v1", {"v2": 0.0, "v3": 1.0}))) == {"v3"}


def test_a_request_without_a_key_gets_an_upstream_at_random() -> None:
    split = Split("v1", {"v2": 0.2})
    drawn = iter([0.0, 0.19, 0.2, 0.99])
    assert [split.choose(None, drawn.__next__) for _ in range(4)] == ["v2", "v2", "v1", "v1"]
    rng = random.Random(7)
    found = [split.choose(None, rng.random) for _ in range(10_000)]
    assert abs(found.count("v2") / 10_000 - 0.2) <= 0.01


def test_splits_of_one_upstream_agree_and_those_of_two_are_independent() -> None:
    first = chosen(Split("v1", {"v2": 0.5}))
    assert first == chosen(Split("v1", {"v2": 0.5}))
    other = chosen(Split("w1", {"v2": 0.5}))
    both = sum(one == two == "v2" for one, two in zip(first, other, strict=True))
    assert abs(both / len(KEYS) - 0.25) <= 0.02
