import pytest

from umbel.policy.balance import RoundRobin


def test_replicas_are_taken_in_turn_beginning_with_the_first() -> None:
    policy = RoundRobin(3)
    assert [policy.pick() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_nothing_to_take_is_an_error() -> None:
    with pytest.raises(ValueError, match="replica"):
        RoundRobin(0)
