"""The gradient limit stays within its bounds, and unused or sparse windows do not change it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.gradient_limit import GRADIENT_MIN, SMOOTHING, GradientLimit

CALLS = st.tuples(
    st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0, 7.0]), st.floats(0.0, 100.0), st.integers(1, 2000), st.integers(1, 30)
)


@given(st.lists(CALLS, max_size=100))
def test_the_limit_stays_in_bounds_and_falls_by_a_tenth_at_most(
    calls: list[tuple[float, float, int, int]],
) -> None:
    limit = GradientLimit(initial=20, minimum=4, maximum=100)
    now = 0.0
    for passed, seconds, in_flight, times in calls:
        now += passed
        for _ in range(times):
            before = limit.limit
            limit.ended(now, seconds, in_flight)
            assert 4 <= limit.limit <= 100
            assert limit.limit >= int(before * (1 - SMOOTHING * (1 - GRADIENT_MIN))) - 1
            assert limit.limit <= before + 0.2 * (before + 1) ** 0.5 + 1


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 9)), max_size=100))
def test_an_unused_limit_never_changes(calls: list[tuple[float, int]]) -> None:
    limit = GradientLimit(initial=20)
    for number, (seconds, in_flight) in enumerate(calls):
        limit.ended(number / 10, seconds, in_flight)
        assert limit.limit == 20
