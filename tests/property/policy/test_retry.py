"""Retry rules against a small model: number of retries, deadline, and distribution of the pauses."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from umbel.core.failure_kinds import KINDS, Kind
from umbel.policy.retry import AttemptResult, RetryRules

RESULT = st.builds(
    AttemptResult,
    st.none() | st.sampled_from(list(Kind)),
    st.integers(100, 599),
    st.booleans(),
    st.none() | st.floats(0, 100),
)
RULES = st.builds(RetryRules, attempts=st.integers(1, 8), backoff=st.floats(0, 5), max_backoff=st.floats(0, 5))


@given(rules=RULES, results=st.lists(RESULT, min_size=20, max_size=20), budget=st.floats(0, 30), seed=st.integers())
def test_a_call_is_retried_in_time_and_not_too_often(
    rules: RetryRules, results: list[AttemptResult], budget: float, seed: int
) -> None:
    rng = Random(seed)
    now, made = 0.0, 0
    for result in results:
        made += 1
        if not rules.wants(made, result):
            break
        assert _table_says_retry(result)
        pause = rules.pause(made, result, now, budget, rng)
        if pause is None:
            # Refused only if the shortest possible pause could end after the deadline.
            longest = max(result.retry_after or 0.0, min(rules.max_backoff, rules.backoff * 2 ** (made - 1)))
            assert now + longest >= budget
            break
        assert pause >= (result.retry_after or 0.0)
        assert pause <= max(result.retry_after or 0.0, min(rules.max_backoff, rules.backoff * 2 ** (made - 1)))
        now += pause
        assert now < budget
    else:
        raise AssertionError("it went on for ever")
    assert made <= rules.attempts


def _table_says_retry(result: AttemptResult) -> bool:
    if result.kind is None:
        return result.status in (502, 503, 504)
    if result.kind is Kind.RESET and not result.untouched:
        return False
    return KINDS[result.kind].retryable


@given(seed=st.integers(), made=st.integers(1, 6))
def test_the_jitter_is_spread_over_the_whole_wait(seed: int, made: int) -> None:
    rng = Random(seed)
    rules = RetryRules()
    longest = min(0.25, 0.025 * 2 ** (made - 1))
    pauses = [rules.pause(made, AttemptResult(Kind.CONNECT), 0.0, math.inf, rng) for _ in range(200)]
    drawn = [pause / longest for pause in pauses if pause is not None]
    assert len(drawn) == 200
    assert min(drawn) < 0.2 and max(drawn) > 0.8
    assert 0.3 < sum(drawn) / len(drawn) < 0.7
