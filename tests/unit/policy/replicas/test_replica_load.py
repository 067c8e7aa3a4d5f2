from __future__ import annotations

import pytest

from umbel.policy.replicas.replica_load import LINGERING_ENDS_MAX, OVERTAKEN_SECONDS_MAX, USUAL_SECONDS, ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState


def test_what_is_in_flight_is_the_load() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    loads.begun(a)
    loads.begun(a)
    assert (loads.of(0.0, a), loads.of(0.0, b)) == (2, 0)
    loads.ended(1.0, a, 1.0, False)
    loads.ended(1.0, a, 1.0, None)
    assert loads.of(1.0, a) == 0


def test_a_failure_counts_as_one_in_flight_for_as_long_as_an_answer_usually_takes() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    for _ in range(2):
        loads.begun(a)
    loads.ended(0.5, a, 0.5, False)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.of(1.0, a), loads.of(1.499, a), loads.of(1.501, a)) == (1, 1, 0)


def test_a_failure_of_a_fast_replica_counts_for_a_tenth_of_a_second() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    for _ in range(2):
        loads.begun(a)
    loads.ended(0.5, a, 0.001, False)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.of(1.0, a), loads.of(1.099, a), loads.of(1.101, a)) == (1, 1, 0)


def test_it_is_failing_until_that_time_is_over_or_an_answer_comes() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for _ in range(4):
        loads.begun(a)
    assert not loads.failing(0.0, a)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.failing(1.0, a), loads.failing(1.099, a), loads.failing(1.101, a)) == (True, True, False)
    loads.ended(2.0, a, 0.001, True)
    loads.ended(2.0, a, 0.001, None)
    assert loads.failing(2.0, a)
    loads.ended(2.0, a, 0.001, False)
    assert not loads.failing(2.0, a)
    assert loads.of(2.0, a) == 1  # but the failure still counts


def test_the_usual_time_is_a_moving_average_of_answers_and_only_of_them() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for seconds, has_failed in ((1.0, False), (2.0, False), (9.0, True), (9.0, None)):
        loads.begun(a)
        loads.ended(0.0, a, seconds, has_failed)
    assert loads.usual(a) == pytest.approx(1.1)


def test_before_its_first_answer_a_replica_is_taken_to_be_as_slow_as_the_slowest() -> None:
    a, b, c = ReplicaState("a"), ReplicaState("b"), ReplicaState("c")
    loads = ReplicaLoads([a, b, c])
    assert loads.usual(a) == USUAL_SECONDS
    for member, seconds in ((b, 0.2), (c, 0.7)):
        loads.begun(member)
        loads.ended(0.0, member, seconds, False)
    assert loads.usual(a) == 0.7


def test_failures_stop_counting_in_the_order_of_their_time_not_of_their_coming() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    loads.begun(a)
    loads.ended(0.0, a, 1.0, False)
    loads.begun(a)
    loads.ended(0.0, a, 1.0, True)  # counts for a second
    for _ in range(100):
        loads.begun(a)
        loads.ended(0.0, a, 0.01, False)
    loads.begun(a)
    loads.ended(0.0, a, 0.01, True)  # counts for a tenth of it
    assert [loads.of(now, a) for now in (0.0, 0.11, 1.01)] == [2, 1, 0]


def test_no_more_failures_are_remembered_than_the_bound() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for _ in range(LINGERING_ENDS_MAX + 5):
        loads.begun(a)
        loads.ended(0.0, a, 0.0, True)
    assert loads.of(0.0, a) == LINGERING_ENDS_MAX


def test_an_attempt_that_ends_on_a_replica_that_left_changes_no_other() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    loads.begun(a)
    loads.begun(a)
    loads.follow([b])
    loads.ended(1.0, a, 9.0, False)
    loads.ended(1.0, a, 9.0, True)
    assert (a.in_flight, loads.of(1.0, b), loads.usual(b)) == (0, 0, USUAL_SECONDS)


def overtake(loads: ReplicaLoads, member: ReplicaState, began_at: float, now: float) -> None:
    loads.begun(member)
    loads.ended(now, member, now - began_at, None)
    loads.overtaken(now, member, now - began_at)


def test_an_overtaken_attempt_counts_for_its_age_and_twice_as_long_each_time() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    now = 0.0
    for lasts in (0.25, 0.5, 1.0, 2.0, 4.0, OVERTAKEN_SECONDS_MAX, OVERTAKEN_SECONDS_MAX):
        overtake(loads, a, now, now + 0.25)
        now += 0.25
        assert (loads.of(now, a), loads.of(now + lasts * 0.99, a), loads.of(now + lasts, a)) == (1, 1, 0)
        now += lasts


def test_overtaken_attempts_that_ran_together_count_once_in_a_row() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for number in range(20):
        overtake(loads, a, 0.0, 0.25 + number / 1000)
    assert loads.of(0.27, a) == 20
    assert loads.of(0.6, a) == 0
    overtake(loads, a, 1.0, 1.25)
    assert (loads.of(1.74, a), loads.of(1.75, a)) == (1, 0)


def test_only_a_response_quicker_than_the_overtaken_attempt_ends_the_row() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    overtake(loads, a, 0.0, 0.25)
    for seconds, lasts in ((0.5, 0.5), (0.125, 0.25)):
        loads.begun(a)
        loads.ended(1.0, a, seconds, False)
        overtake(loads, a, 1.0, 1.25)
        assert (loads.of(1.25 + lasts * 0.99, a), loads.of(1.25 + lasts, a)) == (1, 0)


def test_an_overtaken_attempt_is_no_failure() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    overtake(loads, a, 0.0, 0.25)
    assert not loads.failing(0.25, a)
