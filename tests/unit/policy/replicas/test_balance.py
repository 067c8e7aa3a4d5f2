"""Load-balancing policies: round robin, weighted round robin, power of two choices, and the usable replicas."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from umbel.policy.replicas.balance import Picker, PowerOfTwo, RoundRobin, WeightedRoundRobin, usable
from umbel.policy.replicas.replica_load import ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState


def members(*weights: int) -> list[ReplicaState]:
    """A set named a, b, c, …"""
    return [ReplicaState(name, weight) for name, weight in zip("abcdefgh", weights, strict=False)]


def following(policy: Picker, replicas: Sequence[ReplicaState]) -> Picker:
    policy.follow(replicas)
    return policy


def turns(policy: Picker, number: int, replicas: Sequence[ReplicaState]) -> str:
    """The names of the next ``count`` replicas that are picked."""
    return "".join(policy.pick(0.0, replicas).name for _ in range(number))


def test_replicas_take_turns_beginning_with_the_first() -> None:
    abc = members(1, 1, 1)
    assert turns(following(RoundRobin(), abc), 7, abc) == "abcabca"


def test_the_turn_of_an_unusable_replica_goes_to_the_next_replica() -> None:
    a, b, c, d = members(1, 1, 1, 1)
    policy = following(RoundRobin(), [a, b, c, d])
    assert turns(policy, 4, [a, c, d]) == "acda"
    assert turns(policy, 1, [a]) == "a"
    assert turns(policy, 1, [a, d]) == "d"


def test_a_replica_that_stays_keeps_its_turn_in_a_new_set() -> None:
    a, b, c, d = members(1, 1, 1, 1)
    policy = following(RoundRobin(), [b, c])
    assert turns(policy, 1, [b, c]) == "b"
    policy.follow([a, b, c, d])
    assert turns(policy, 5, [a, b, c, d]) == "cdabc"
    policy.follow([a, b, c])  # The turn was d's.
    assert turns(policy, 1, [a, b, c]) == "a"
    policy.follow([a, c])  # The turn was b's.
    assert turns(policy, 3, [a, c]) == "cac"
    policy.follow([])
    policy.follow([b, c])
    assert turns(policy, 2, [b, c]) == "bc"


def test_weighted_turns_are_evenly_spread() -> None:
    abc = members(5, 1, 1)
    assert turns(WeightedRoundRobin(), 7, abc) == "aabacaa"


def test_weights_hold_among_the_usable_replicas() -> None:
    abc = members(6, 3, 1)
    policy = WeightedRoundRobin()
    assert Counter(turns(policy, 40, abc[1:])) == {"b": 30, "c": 10}
    assert Counter(turns(policy, 100, abc)) == {"a": 60, "b": 30, "c": 10}


def test_the_credit_of_a_heavy_replica_that_left_is_dropped() -> None:
    a, b, c = members(98, 1, 1)
    policy = following(WeightedRoundRobin(), [a, b, c])
    turns(policy, 60, [a, b, c])
    policy.follow([b, c])
    assert abs(Counter(turns(policy, 20, [b, c]))["b"] - 10) <= 2


def test_the_less_loaded_of_two_replicas_is_taken() -> None:
    a, b = ab = members(1, 1)
    loads = ReplicaLoads(ab)
    policy = PowerOfTwo(loads, random.Random(1))
    a.in_flight += 1
    assert set(turns(policy, 50, ab)) == {"b"}
    b.in_flight += 1
    assert set(turns(policy, 50, ab)) == {"a", "b"}


def test_a_failing_replica_is_taken_only_if_the_other_fails_too() -> None:
    a, b = ab = members(1, 1)
    loads = ReplicaLoads(ab)
    policy = PowerOfTwo(loads, random.Random(1))
    for _ in range(9):
        a.in_flight += 1
    b.in_flight += 1
    loads.ended(1.0, b, 0.0, True)
    assert {policy.pick(1.0, ab) for _ in range(50)} == {a}
    assert {policy.pick(1.2, ab) for _ in range(50)} == {b}
    loads.ended(2.0, a, 0.0, True)
    b.in_flight += 1
    loads.ended(2.0, b, 0.0, True)
    assert {policy.pick(2.0, ab) for _ in range(50)} == {b}  # both are failing: the load decides


def test_the_most_loaded_of_many_is_never_taken() -> None:
    many = members(1, 1, 1, 1, 1)
    loads = ReplicaLoads(many)
    many[3].in_flight += 1
    policy = PowerOfTwo(loads, random.Random(1))
    assert set(turns(policy, 500, many)) == set("abce")
    assert set(turns(policy, 5, many[3:4])) == {"d"}


@pytest.mark.parametrize(
    ("down", "out", "tried", "left"),
    [
        ("", "", "", "abc"),
        ("b", "", "", "ac"),
        ("b", "c", "", "a"),
        ("", "", "a", "bc"),
        ("", "", "abc", "abc"),  # all were tried: tried ones are used
        ("a", "", "bc", "bc"),  # a tried replica before one that is down
        ("", "a", "bc", "bc"),  # a tried replica before an ejected one
        ("ab", "c", "", "c"),  # an ejected replica before one that is down
        ("abc", "", "", "abc"),  # all are down: the rule is skipped
        ("abc", "b", "c", "a"),
        ("x", "y", "z", "abc"),  # names that are not in the set
    ],
)
def test_each_rule_leaves_replicas_out_as_long_as_it_leaves_one(down: str, out: str, tried: str, left: str) -> None:
    found = usable(members(1, 1, 1), frozenset(down), set(out), list(tried))
    assert "".join(member.name for member in found) == left
