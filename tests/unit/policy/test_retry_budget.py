"""The retry budget: its bound, and what counts as active and as charged."""

from __future__ import annotations

import math

import pytest

from umbel.policy.retry_budget import Budget, BudgetStatistics


def active(budget: Budget, count: int) -> list[object]:
    calls = [object() for _ in range(count)]
    assert all(budget.enter(call) for call in calls)
    return calls


def granted(budget: Budget) -> int:
    count = 0
    while budget.take():
        count += 1
    return count


@pytest.mark.parametrize(
    ("ratio", "minimum", "calls", "limit"),
    [
        (0.2, 3, 0, 3),
        (0.2, 3, 1, 3),
        (0.2, 3, 19, 3),
        (0.2, 3, 20, 4),
        (0.2, 3, 99, 19),
        (0.2, 3, 100, 20),
        (0.29, 0, 100, 29),
        (0.0, 3, 100, 3),
        (0.5, 0, 1, 0),
        (0.5, 0, 2, 1),
        (2.0, 0, 3, 6),
    ],
)
def test_the_bound_is_a_share_of_the_active_calls_and_at_least_the_minimum(
    ratio: float, minimum: int, calls: int, limit: int
) -> None:
    budget = Budget(ratio, minimum)
    kept = active(budget, calls)
    assert granted(budget) == limit
    assert budget.statistics() == BudgetStatistics(len(kept), limit, limit, 1)


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = Budget(0.2, 1)
    assert budget.take()
    assert not budget.take()
    budget.give_back()
    assert budget.take()
    assert budget.statistics() == BudgetStatistics(active=0, extra=1, limit=1, denied=1)


def test_a_shrinking_share_ends_no_granted_attempt_and_grants_no_other() -> None:
    budget = Budget(0.5, 0)
    calls = active(budget, 4)
    assert granted(budget) == 2
    for call in calls[:3]:
        budget.leave(call)
    assert (budget.statistics().extra, budget.statistics().limit) == (2, 0)
    assert not budget.take()


def test_a_call_that_enters_twice_is_counted_once() -> None:
    budget = Budget()
    call = object()
    assert budget.enter(call)
    assert not budget.enter(call)
    assert budget.statistics().active == 1
    budget.leave(call)
    assert budget.statistics().active == 0


def test_calls_are_counted_by_identity() -> None:
    budget = Budget()
    one, other = [1], [1]
    assert budget.enter(one) and budget.enter(other)
    assert budget.statistics().active == 2


def test_an_infinite_ratio_grants_everything() -> None:
    budget = Budget(math.inf, 0)
    assert all(budget.take() for _ in range(1000))


def test_giving_back_more_than_was_taken_is_an_error() -> None:
    with pytest.raises(ValueError, match="more was given back"):
        Budget().give_back()


@pytest.mark.parametrize(("ratio", "minimum"), [(-0.1, 3), (math.nan, 3), (0.2, -1)])
def test_negative_numbers_are_refused(ratio: float, minimum: int) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        Budget(ratio, minimum)
