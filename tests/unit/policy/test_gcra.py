"""A GCRA limit, on times that the test gives."""

from __future__ import annotations

import math

import pytest

from umbel.policy.gcra import NEVER, Gcra


def test_a_burst_is_admitted_at_once_then_one_request_per_increment() -> None:
    limit = Gcra(rate=10, burst=3)
    tat, times = NEVER, []
    for step in range(100):
        now = 1000 + step / 100
        decision = limit.decide(tat, now)
        tat = decision.tat
        if decision.admitted:
            times.append(step)
    assert times == [0, 1, 2, 10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_a_whole_burst_at_one_time_is_admitted_in_spite_of_rounding() -> None:
    for rate in (0.1, 3, 7, 10, 1000 / 7):
        limit = Gcra(rate, burst=1000)
        tat = NEVER
        for _ in range(1000):
            decision = limit.decide(tat, 987_654.321)
            assert decision.admitted
            tat = decision.tat
        assert not limit.decide(tat, 987_654.321).admitted


def test_a_request_without_cost_is_admitted_even_in_debt() -> None:
    limit = Gcra(rate=1, burst=1)
    decision = limit.decide(500.0, 0.0, 0)
    assert decision.admitted
    assert (decision.tat, decision.remaining, decision.reset) == (500.0, 0.0, 500.0)


def test_a_cost_above_the_burst_is_never_admitted_and_spends_nothing() -> None:
    decision = Gcra(rate=1, burst=5).decide(NEVER, 0.0, 5.5)
    assert decision == (False, NEVER, 5.0, math.inf, 0.0)


def test_a_refusal_says_what_is_left_and_when_to_come_again() -> None:
    limit = Gcra(rate=2, burst=4)
    tat = limit.decide(NEVER, 10.0, 3).tat
    assert limit.decide(tat, 10.0, 2) == (False, tat, 1.0, 0.5, 1.5)
    assert limit.decide(tat, 10.5, 2).admitted


@pytest.mark.parametrize("cost", [-1.0, math.nan])
def test_a_cost_that_is_no_amount_is_refused_as_a_mistake(cost: float) -> None:
    with pytest.raises(ValueError, match="cost of a request"):
        Gcra(1, 1).decide(NEVER, 0.0, cost)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0.5), (1, math.inf)])
def test_a_limit_without_a_possible_rate_or_burst_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="of a limit must be"):
        Gcra(rate, burst)


@pytest.mark.parametrize("ahead", [(), (1,), (2, 1, 4), (1,) * 9])
def test_a_wait_is_the_time_until_all_that_is_ahead_and_the_cost_were_spent(ahead: tuple[int, ...]) -> None:
    limit = Gcra(rate=2, burst=4)
    now = start = 10.0
    tat = limit.decide(NEVER, now, 3).tat
    said = limit.wait(tat, now, 2, sum(ahead))
    for cost in (*ahead, 2):
        now += limit.wait(tat, now, cost)
        decision = limit.decide(tat, now, cost)
        assert decision.admitted
        tat = decision.tat
    assert now - start == pytest.approx(said)


def test_a_wait_for_what_conforms_is_zero_and_for_more_than_the_burst_infinite() -> None:
    limit = Gcra(rate=2, burst=4)
    assert limit.wait(NEVER, 10.0, 4) == 0
    assert limit.wait(NEVER, 10.0, 4.5) == math.inf
