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
def test_a_share_of_the_active_calls_is_granted_and_never_less_than_the_minimum(
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


def test_what_was_granted_goes_on_when_the_share_shrinks_but_nothing_more_is_granted() -> None:
    budget = Budget(0.5, 0)
    calls = active(budget, 4)
    assert granted(budget) == 2
    for call in calls[:3]:
        budget.leave(call)
    assert (budget.statistics().extra, budget.statistics().limit) == (2, 0)
    assert not budget.take()


def test_a_call_is_counted_once_by_the_layer_that_saw_it_first() -> None:
    budget = Budget()
    call = object()
    assert budget.enter(call)
    assert not budget.enter(call)
    assert budget.statistics().active == 1
    budget.leave(call)
    assert budget.statistics().active == 0


def test_calls_that_are_equal_are_still_two() -> None:
    budget = Budget()
    one, other = [1], [1]
    assert budget.enter(one) and budget.enter(other)
    assert budget.statistics().active == 2


def test_an_infinite_ratio_grants_everything() -> None:
    budget = Budget(math.inf, 0)
    assert all(budget.take() for _ in range(1000))


def test_giving_back_what_nobody_took_is_a_bug() -> None:
    with pytest.raises(ValueError, match="more was given back"):
        Budget().give_back()


@pytest.mark.parametrize(("ratio", "minimum"), [(-0.1, 3), (math.nan, 3), (0.2, -1)])
def test_numbers_without_a_meaning_are_refused(ratio: float, minimum: int) -> None:
    with pytest.raises(ValueError, match="not be negative"):
        Budget(ratio, minimum)
