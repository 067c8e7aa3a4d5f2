from __future__ import annotations

import pytest

from umbel.policy.load import FAILURES_MAX, USUAL_SECONDS, Loads


def test_what_is_in_flight_is_the_load() -> None:
    loads = Loads(2)
    loads.begun(0)
    loads.begun(0)
    assert (loads.of(0.0, 0), loads.of(0.0, 1)) == (2, 0)
    loads.ended(1.0, 0, 1.0, False)
    loads.ended(1.0, 0, 1.0, None)
    assert loads.of(1.0, 0) == 0


def test_a_failure_counts_as_one_in_flight_for_as_long_as_an_answer_usually_takes() -> None:
    loads = Loads(2)
    for _ in range(2):
        loads.begun(0)
    loads.ended(0.05, 0, 0.05, False)
    loads.ended(1.0, 0, 0.001, True)
    assert (loads.of(1.0, 0), loads.of(1.0499, 0), loads.of(1.0501, 0)) == (1, 1, 0)


def test_the_usual_time_is_a_moving_average_of_answers_and_only_of_them() -> None:
    loads = Loads(1)
    for seconds, has_failed in ((1.0, False), (2.0, False), (9.0, True), (9.0, None)):
        loads.begun(0)
        loads.ended(0.0, 0, seconds, has_failed)
    assert loads.usual(0) == pytest.approx(1.1)


def test_before_its_first_answer_a_replica_is_taken_to_be_as_slow_as_the_slowest() -> None:
    loads = Loads(3)
    assert loads.usual(0) == USUAL_SECONDS
    for place, seconds in ((1, 0.2), (2, 0.7)):
        loads.begun(place)
        loads.ended(0.0, place, seconds, False)
    assert loads.usual(0) == 0.7


def test_failures_stop_counting_in_the_order_of_their_time_not_of_their_coming() -> None:
    loads = Loads(2)
    loads.begun(0)
    loads.ended(0.0, 0, 1.0, True)  # counts for USUAL_SECONDS
    loads.begun(0)
    loads.ended(0.0, 0, 0.01, False)
    loads.begun(0)
    loads.ended(0.0, 0, 0.01, True)  # counts for a tenth of that
    assert [loads.of(now, 0) for now in (0.0, 0.02, 0.2)] == [2, 1, 0]


def test_no_more_failures_are_remembered_than_the_bound() -> None:
    loads = Loads(1)
    for _ in range(FAILURES_MAX + 5):
        loads.begun(0)
        loads.ended(0.0, 0, 0.0, True)
    assert loads.of(0.0, 0) == FAILURES_MAX
