"""Hedging: rules, verdicts, and the race of attempts."""

from __future__ import annotations

import math

import pytest

from umbel.core.failure_kinds import Kind
from umbel.policy.hedge import HedgeRules, HedgeVerdict, Race, RaceEntry, hedge_verdict
from umbel.policy.retry import AttemptResult
from umbel.policy.retry_budget import Budget


@pytest.mark.parametrize(
    ("after", "rules"),
    [
        (0.25, HedgeRules(seconds=0.25)),
        (0, HedgeRules(seconds=0.0)),
        ("p95", HedgeRules(quantile=0.95)),
        ("p5", HedgeRules(quantile=0.05)),
        ("p99.9", HedgeRules(quantile=0.9990000000000001)),
    ],
)
def test_the_delay_of_a_hedge_is_seconds_or_a_percentile(after: float | str, rules: HedgeRules) -> None:
    assert HedgeRules.of(after) == rules


@pytest.mark.parametrize(
    "after", ["p", "p0", "p00.0", "p100", "95", "p-5", "P95", "p95%", "p95 ", "p9\u0665", "1s", ""]
)
def test_an_invalid_percentile_is_refused(after: str) -> None:
    with pytest.raises(ValueError, match="is not a delay; give seconds as a number"):
        HedgeRules.of(after)


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"seconds": 1.0, "quantile": 0.5},
        {"seconds": -1.0},
        {"seconds": math.inf},
        {"seconds": math.nan},
        {"quantile": 0.0},
        {"quantile": 1.0},
        {"seconds": 1.0, "max": -1},
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"either a duration|finite|between 0 and 1|not be negative"):
        HedgeRules(**numbers)


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (AttemptResult(None, 200), HedgeVerdict.SUCCESS),
        (AttemptResult(None, 304), HedgeVerdict.SUCCESS),
        (AttemptResult(None, 404), HedgeVerdict.SUCCESS),
        (AttemptResult(None, 429, retry_after=3.0), HedgeVerdict.SUCCESS),
        (AttemptResult(None, 500), HedgeVerdict.FAILURE),
        (AttemptResult(None, 502), HedgeVerdict.RETRYABLE),
        (AttemptResult(None, 503), HedgeVerdict.RETRYABLE),
        (AttemptResult(None, 504), HedgeVerdict.RETRYABLE),
        (AttemptResult(None, 503, retry_after=0.0), HedgeVerdict.RETRYABLE),
        (AttemptResult(None, 503, retry_after=1.0), HedgeVerdict.FAILURE),
        (AttemptResult(Kind.CONNECT), HedgeVerdict.RETRYABLE),
        (AttemptResult(Kind.DNS), HedgeVerdict.RETRYABLE),
        (AttemptResult(Kind.RESET, untouched=True), HedgeVerdict.RETRYABLE),
        (AttemptResult(Kind.RESET), HedgeVerdict.FAILURE),
        (AttemptResult(Kind.TIMEOUT), HedgeVerdict.FAILURE),
        (AttemptResult(Kind.MALFORMED), HedgeVerdict.FAILURE),
    ],
)
def test_each_result_has_its_verdict(result: AttemptResult, verdict: HedgeVerdict) -> None:
    assert hedge_verdict(result) is verdict


def test_the_first_success_wins_and_nothing_is_started_after_it() -> None:
    race = Race(2, Budget())
    assert race.another()
    assert race.ended(HedgeVerdict.SUCCESS, RaceEntry.HEDGE)
    assert race.over
    assert not race.another()
    assert not race.ended(HedgeVerdict.SUCCESS, RaceEntry.FIRST)
    assert race.running == 0


def test_a_retryable_failure_leaves_the_race_open_until_it_is_settled() -> None:
    race = Race(1, Budget())
    assert not race.ended(HedgeVerdict.RETRYABLE, RaceEntry.FIRST)
    assert not race.over
    assert race.another()
    race.settle()
    assert not race.over
    assert not race.ended(HedgeVerdict.RETRYABLE, RaceEntry.HEDGE)
    assert not race.another()
    race.settle()
    assert race.over


def test_a_final_failure_ends_the_race_only_without_an_attempt_under_way() -> None:
    race = Race(1, Budget())
    assert race.another()
    race.ended(HedgeVerdict.FAILURE, RaceEntry.FIRST)
    assert not race.over
    race.ended(HedgeVerdict.FAILURE, RaceEntry.HEDGE)
    assert race.over
    lonely = Race(1, Budget())
    lonely.ended(HedgeVerdict.FAILURE, RaceEntry.FIRST)
    assert lonely.over
    assert not lonely.another()


def test_a_cancel_ends_the_race() -> None:
    race = Race(3, Budget())
    race.another()
    race.ended(None, RaceEntry.FIRST)
    assert race.over
    assert not race.may_grow


def test_hedges_are_bounded_by_max_and_each_is_charged_to_the_budget() -> None:
    budget = Budget()
    race = Race(2, budget)
    assert [race.another() for _ in range(3)] == [RaceEntry.HEDGE, RaceEntry.HEDGE, None]
    assert not race.may_grow
    assert budget.statistics().extra == 2
    race.ended(HedgeVerdict.FAILURE, RaceEntry.HEDGE)
    race.ended(None, RaceEntry.HEDGE)
    assert budget.statistics().extra == 0
    assert budget.statistics().denied == 0


def test_an_exhausted_budget_grants_no_hedge_until_something_is_given_back() -> None:
    budget = Budget(0, 1)
    one, other = Race(1, budget), Race(1, budget)
    assert one.another()
    assert not other.another()
    assert other.may_grow
    one.ended(HedgeVerdict.SUCCESS, RaceEntry.HEDGE)
    assert other.another()


def test_failover_is_not_charged_to_the_budget() -> None:
    budget = Budget(0, 0)
    race = Race(2, budget)
    assert race.another() is None
    race.ended(HedgeVerdict.RETRYABLE, RaceEntry.FIRST)
    assert race.another(failover=True) is RaceEntry.FAILOVER
    assert budget.statistics().extra == 0
    assert race.ended(HedgeVerdict.SUCCESS, RaceEntry.FAILOVER)
    assert budget.statistics().extra == 0
    assert race.another(failover=True) is None
