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
    loads.ended(0.5, 0, 0.5, False)
    loads.ended(1.0, 0, 0.001, True)
    assert (loads.of(1.0, 0), loads.of(1.499, 0), loads.of(1.501, 0)) == (1, 1, 0)


def test_of_a_fast_replica_it_counts_for_a_tenth_of_a_second_all_the_same() -> None:
    loads = Loads(2)
    for _ in range(2):
        loads.begun(0)
    loads.ended(0.5, 0, 0.001, False)
    loads.ended(1.0, 0, 0.001, True)
    assert (loads.of(1.0, 0), loads.of(1.099, 0), loads.of(1.101, 0)) == (1, 1, 0)


def test_it_is_failing_until_that_time_is_over_or_an_answer_comes() -> None:
    loads = Loads(1)
    for _ in range(4):
        loads.begun(0)
    assert not loads.failing(0.0, 0)
    loads.ended(1.0, 0, 0.001, True)
    assert (loads.failing(1.0, 0), loads.failing(1.099, 0), loads.failing(1.101, 0)) == (True, True, False)
    loads.ended(2.0, 0, 0.001, True)
    loads.ended(2.0, 0, 0.001, None)
    assert loads.failing(2.0, 0)
    loads.ended(2.0, 0, 0.001, False)
    assert not loads.failing(2.0, 0)
    assert loads.of(2.0, 0) == 1  # but the failure still counts


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
    loads = Loads(1)
    loads.begun(0)
    loads.ended(0.0, 0, 1.0, False)
    loads.begun(0)
    loads.ended(0.0, 0, 1.0, True)  # counts for a second
    for _ in range(100):
        loads.begun(0)
        loads.ended(0.0, 0, 0.01, False)
    loads.begun(0)
    loads.ended(0.0, 0, 0.01, True)  # counts for a tenth of it
    assert [loads.of(now, 0) for now in (0.0, 0.11, 1.01)] == [2, 1, 0]


def test_no_more_failures_are_remembered_than_the_bound() -> None:
    loads = Loads(1)
    for _ in range(FAILURES_MAX + 5):
        loads.begun(0)
        loads.ended(0.0, 0, 0.0, True)
    assert loads.of(0.0, 0) == FAILURES_MAX
