from __future__ import annotations

import random
from collections import Counter

import pytest

from umbel.policy.balance import PowerOfTwo, RoundRobin, Weighted, usable
from umbel.policy.load import Loads


def test_replicas_take_turns_beginning_with_the_first() -> None:
    policy = RoundRobin()
    assert [policy.pick(0.0, range(3)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_turn_of_one_that_cannot_take_it_falls_to_the_next() -> None:
    policy = RoundRobin()
    assert [policy.pick(0.0, [0, 2, 3]) for _ in range(4)] == [0, 2, 3, 0]
    assert policy.pick(0.0, [0]) == 0
    assert policy.pick(0.0, [0, 3]) == 3


def test_weighted_turns_are_spread() -> None:
    policy = Weighted([5, 1, 1])
    assert [policy.pick(0.0, range(3)) for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


def test_weights_hold_among_those_that_are_left() -> None:
    policy = Weighted([6, 3, 1])
    assert Counter(policy.pick(0.0, [1, 2]) for _ in range(40)) == {1: 30, 2: 10}
    assert Counter(policy.pick(0.0, range(3)) for _ in range(100)) == {0: 60, 1: 30, 2: 10}


@pytest.mark.parametrize("weights", [[], [1, 0], [-1]])
def test_a_weight_is_one_at_least(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Weighted(weights)


def test_of_two_the_less_loaded_is_taken() -> None:
    loads = Loads(2)
    policy = PowerOfTwo(loads, random.Random(1))
    loads.begun(0)
    assert {policy.pick(0.0, range(2)) for _ in range(50)} == {1}
    loads.begun(1)
    assert {policy.pick(0.0, range(2)) for _ in range(50)} == {0, 1}


def test_one_that_is_failing_is_taken_only_if_the_other_is_too() -> None:
    loads = Loads(2)
    policy = PowerOfTwo(loads, random.Random(1))
    for _ in range(9):
        loads.begun(0)
    loads.begun(1)
    loads.ended(1.0, 1, 0.0, True)
    assert {policy.pick(1.0, range(2)) for _ in range(50)} == {0}
    assert {policy.pick(1.2, range(2)) for _ in range(50)} == {1}
    loads.ended(2.0, 0, 0.0, True)
    loads.begun(1)
    loads.ended(2.0, 1, 0.0, True)
    assert {policy.pick(2.0, range(2)) for _ in range(50)} == {1}  # both are: by load


def test_the_most_loaded_of_many_is_never_taken() -> None:
    loads = Loads(5)
    loads.begun(3)
    policy = PowerOfTwo(loads, random.Random(1))
    assert Counter(policy.pick(0.0, range(5)) for _ in range(500)).keys() == {0, 1, 2, 4}
    assert {policy.pick(0.0, [3]) for _ in range(5)} == {3}


@pytest.mark.parametrize(
    ("down", "out", "tried", "left"),
    [
        ((), (), (), [0, 1, 2]),
        ({1}, (), (), [0, 2]),
        ({1}, {2}, (), [0]),
        ((), (), [0], [1, 2]),
        ((), (), [0, 1, 2], [0, 1, 2]),  # all tried: again
        ({0}, (), [1, 2], [1, 2]),  # rather one that was tried than one that is down
        ((), {0}, [1, 2], [1, 2]),  # or ejected
        ({0, 1}, {2}, (), [2]),  # the last that is up is not ejected
        ({0, 1, 2}, (), (), [0, 1, 2]),  # all down: none is
        ({0, 1, 2}, {1}, [2], [0]),
    ],
)
def test_each_rule_leaves_replicas_out_as_long_as_it_leaves_one(down, out, tried, left) -> None:
    assert list(usable(range(3), down, out, tried)) == left
