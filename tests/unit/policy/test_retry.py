"""Retry rules: retried results, and the pause before a retry."""

from __future__ import annotations

import math
from random import Random

import pytest

from umbel.core.failure_kinds import KINDS, Kind
from umbel.policy.retry import RETRY_AFTER_MAX, STATUSES, AttemptResult, RetryOn, RetryRules


class Always(Random):
    """Draws the same number every time."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value


REFUSED = AttemptResult(Kind.CONNECT)


@pytest.mark.parametrize("kind", list(Kind))
def test_by_default_the_failures_of_the_table_of_kinds_are_retried(kind: Kind) -> None:
    expected = KINDS[kind].retryable and kind is not Kind.STATUS
    assert RetryOn().covers(AttemptResult(kind, untouched=True)) is expected


@pytest.mark.parametrize("status", [200, 304, 404, 429, 500, 501, 502, 503, 504, 505])
def test_by_default_502_503_and_504_are_retried(status: int) -> None:
    assert RetryOn().covers(AttemptResult(None, status)) is (status in (502, 503, 504))


def test_a_reset_is_retried_only_before_the_first_byte() -> None:
    for on in (RetryOn(), RetryOn.of(["reset"])):
        assert on.covers(AttemptResult(Kind.RESET, untouched=True))
        assert not on.covers(AttemptResult(Kind.RESET, untouched=False))


def test_a_list_of_kinds_and_statuses_replaces_the_default() -> None:
    on = RetryOn.of(["connect", Kind.RESET, 503, 429])
    assert on == RetryOn(frozenset({Kind.CONNECT, Kind.RESET}), frozenset({503, 429}))
    assert not on.covers(AttemptResult(Kind.DNS))
    assert not on.covers(AttemptResult(None, 502))
    assert RetryOn.of(["status", 500]) == RetryOn(frozenset(), STATUSES | {500})
    assert RetryOn.of([]) == RetryOn(frozenset(), frozenset())


@pytest.mark.parametrize("item", ["timeout", "tls", "overflow", "cancelled", "nonsense", "", 200, 302, 600, -1, True])
def test_a_kind_that_cannot_be_retried_is_refused(item: str | int) -> None:
    with pytest.raises(ValueError, match=r"cannot be retried: use connect, dns, reset, status, or a number from 4"):
        RetryOn.of([item])


def test_attempts_include_the_first_attempt() -> None:
    rules = RetryRules(attempts=3)
    assert [rules.wants(made, REFUSED) for made in (1, 2, 3)] == [True, True, False]
    assert not RetryRules(attempts=1).wants(1, REFUSED)
    assert not rules.wants(1, AttemptResult(Kind.TIMEOUT))
    assert not rules.wants(1, AttemptResult(None, 200))


def test_the_bound_of_the_pause_doubles_up_to_max_backoff() -> None:
    rules = RetryRules(attempts=9)
    longest = [rules.pause(made, REFUSED, 0.0, math.inf, Always(1.0)) for made in range(1, 8)]
    assert longest == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25, 0.25]
    assert rules.pause(5000, REFUSED, 0.0, math.inf, Always(1.0)) == 0.25


def test_the_pause_is_random_from_zero() -> None:
    rules = RetryRules()
    assert rules.pause(1, REFUSED, 0.0, math.inf, Always(0.0)) == 0.0
    assert rules.pause(1, REFUSED, 0.0, math.inf, Always(0.5)) == 0.0125


def test_there_is_no_retry_if_the_pause_would_not_end_before_the_deadline() -> None:
    rules = RetryRules()
    assert rules.pause(1, REFUSED, 10.0, 10.02, Always(1.0)) is None
    assert rules.pause(1, REFUSED, 10.0, 10.025, Always(1.0)) is None
    assert rules.pause(1, REFUSED, 10.0, 10.03, Always(1.0)) == 0.025
    assert rules.pause(1, REFUSED, 10.0, 10.0, Always(0.0)) is None


def test_retry_after_is_the_shortest_pause_if_it_ends_before_the_deadline() -> None:
    rules = RetryRules()

    def pause(after: float, deadline: float) -> float | None:
        return rules.pause(1, AttemptResult(None, 503, retry_after=after), 0.0, deadline, Always(1.0))

    assert pause(2.0, 5.0) == 2.0
    assert pause(0.0, 5.0) == 0.025
    assert pause(5.0, 5.0) is None
    assert pause(90.0, 100.0) == 90.0
    assert pause(RETRY_AFTER_MAX, math.inf) == RETRY_AFTER_MAX
    assert pause(RETRY_AFTER_MAX + 1, math.inf) is None


@pytest.mark.parametrize(
    "numbers",
    [{"attempts": 0}, {"backoff": -1.0}, {"backoff": math.inf}, {"max_backoff": math.nan}, {"max_backoff": -0.1}],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|not negative"):
        RetryRules(**numbers)
