"""One GCRA limit against its definition."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.gcra import NEVER, Gcra

COSTS = st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.5])
STEPS = st.lists(st.tuples(st.floats(0, 3), COSTS), max_size=200)
SLACK = 0.01


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 20), start=st.floats(0, 1e6), steps=STEPS)
def test_a_limit_decides_like_a_bucket_that_leaks_at_its_rate(
    rate: float, burst: int, start: float, steps: list[tuple[float, float]]
) -> None:
    limit = Gcra(rate, burst)
    tat, level, now = NEVER, 0.0, start
    for pause, cost in steps:
        now += pause / rate
        level = max(0.0, level - pause)
        decision = limit.decide(tat, now, cost)
        if cost and not math.isclose(level + cost, burst, abs_tol=SLACK):
            assert decision.admitted is (level + cost < burst)
        level += cost if decision.admitted else 0
        assert math.isclose(decision.remaining, max(0.0, burst - level), abs_tol=SLACK)
        assert math.isclose(decision.reset * rate, level, abs_tol=SLACK)
        tat = decision.tat


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 20), steps=STEPS)
def test_a_refused_cost_is_admitted_after_retry_after_and_not_before(
    rate: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    limit = Gcra(rate, burst)
    tat, now = NEVER, 0.0
    for pause, cost in steps:
        now += pause / rate
        decision = limit.decide(tat, now, cost)
        if cost > burst:
            assert not decision.admitted
            assert decision.retry_after == math.inf
        elif not decision.admitted:
            assert limit.decide(tat, now + decision.retry_after + 1e-9, cost).admitted
            assert not limit.decide(tat, now + decision.retry_after - SLACK / rate, cost).admitted
        else:
            assert decision.retry_after == 0
        tat = decision.tat
