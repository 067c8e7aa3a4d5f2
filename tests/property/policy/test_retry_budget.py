"""A retry budget against its definition."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.retry_budget import Budget

STEPS = st.lists(st.sampled_from(["enter", "again", "leave", "take", "take", "give back"]), max_size=200)


@given(ratio=st.fractions(0, 2, max_denominator=20), minimum=st.integers(0, 5), steps=STEPS)
def test_the_budget_grants_up_to_its_bound_and_never_more(ratio, minimum: int, steps: list[str]) -> None:
    budget = Budget(float(ratio), minimum)
    calls: list[object] = []
    extra = denied = 0
    for step in steps:
        if step == "enter":
            calls.append(object())
            assert budget.enter(calls[-1])
        elif step == "again" and calls:
            assert not budget.enter(calls[0])
        elif step == "leave" and calls:
            budget.leave(calls.pop())
        elif step == "take":
            # In fractions, so that the model has no rounding.
            may = extra + 1 <= max(minimum, ratio * len(calls))
            assert budget.take() is may
            extra += may
            denied += not may
        elif step == "give back" and extra:
            budget.give_back()
            extra -= 1
        statistics = budget.statistics()
        assert (statistics.active, statistics.extra, statistics.denied) == (len(calls), extra, denied)
        assert statistics.limit == max(minimum, math.floor(ratio * len(calls)))
