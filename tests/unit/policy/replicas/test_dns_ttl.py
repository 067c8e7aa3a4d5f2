"""The schedule of DNS look-ups: TTL within bounds, and backoff after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.replicas.dns_ttl import RefreshSchedule

SECONDS = st.floats(min_value=0, max_value=1e9)


def test_the_pause_is_the_ttl_within_its_bounds() -> None:
    refresh = RefreshSchedule(1, 60)
    assert [refresh.succeeded(each) for each in (0, 0.5, 1, 30, 60, 86400)] == [1, 1, 1, 30, 60, 60]


def test_failures_in_a_row_double_the_pause_and_a_success_resets_the_pause() -> None:
    refresh = RefreshSchedule(1, 10)
    assert [refresh.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert refresh.failures == 6
    refresh.succeeded(5)
    assert (refresh.failures, refresh.failed()) == (0, 1)


def test_the_ttl_of_a_partial_success_may_end_the_pause_early() -> None:
    refresh = RefreshSchedule(1, 60)
    assert [refresh.failed(3) for _ in range(4)] == [1, 2, 3, 3]


@given(st.lists(st.one_of(st.tuples(st.just(True), SECONDS), st.tuples(st.just(False), st.none() | SECONDS))))
def test_a_pause_is_always_within_the_bounds(steps: list[tuple[bool, float | None]]) -> None:
    refresh = RefreshSchedule(2, 45)
    for good, lifetime in steps:
        pause = refresh.succeeded(lifetime or 0) if good else refresh.failed(lifetime)
        assert 2 <= pause <= 45


def test_a_thousand_failures_in_a_row_do_not_overflow_the_pause() -> None:
    refresh = RefreshSchedule(1, 60)
    assert {refresh.failed() for _ in range(2000)} == {1, 2, 4, 8, 16, 32, 60}


@pytest.mark.parametrize(("floor", "ceiling"), [(0, 1), (-1, 1), (2, 1)])
def test_invalid_bounds_are_refused(floor: float, ceiling: float) -> None:
    with pytest.raises(ValueError, match="smallest TTL"):
        RefreshSchedule(floor, ceiling)
