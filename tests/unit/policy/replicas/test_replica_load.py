"""The load of a replica: attempts in flight, failures, and overtaken attempts."""

from __future__ import annotations

import pytest

from umbel.policy.replicas.replica_load import LINGERING_ENDS_MAX, OVERTAKEN_SECONDS_MAX, USUAL_SECONDS, ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState


def test_the_load_is_the_number_of_attempts_in_flight() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    a.in_flight += 1
    a.in_flight += 1
    assert (loads.of(0.0, a), loads.of(0.0, b)) == (2, 0)
    loads.ended(1.0, a, 1.0, False)
    loads.ended(1.0, a, 1.0, None)
    assert loads.of(1.0, a) == 0


def test_a_failure_counts_as_load_for_the_usual_response_time() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    for _ in range(2):
        a.in_flight += 1
    loads.ended(0.5, a, 0.5, False)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.of(1.0, a), loads.of(1.499, a), loads.of(1.501, a)) == (1, 1, 0)


def test_a_failure_of_a_fast_replica_counts_as_load_for_a_tenth_of_a_second() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    for _ in range(2):
        a.in_flight += 1
    loads.ended(0.5, a, 0.001, False)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.of(1.0, a), loads.of(1.099, a), loads.of(1.101, a)) == (1, 1, 0)


def test_a_replica_is_failing_until_its_failure_stops_counting_or_a_response() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for _ in range(4):
        a.in_flight += 1
    assert not loads.failing(0.0, a)
    loads.ended(1.0, a, 0.001, True)
    assert (loads.failing(1.0, a), loads.failing(1.099, a), loads.failing(1.101, a)) == (True, True, False)
    loads.ended(2.0, a, 0.001, True)
    loads.ended(2.0, a, 0.001, None)
    assert loads.failing(2.0, a)
    loads.ended(2.0, a, 0.001, False)
    assert not loads.failing(2.0, a)
    assert loads.of(2.0, a) == 1  # but the failure still counts


def test_the_usual_response_time_is_a_moving_average_of_responses_only() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for seconds, has_failed in ((1.0, False), (2.0, False), (9.0, True), (9.0, None)):
        a.in_flight += 1
        loads.ended(0.0, a, seconds, has_failed)
    assert loads.usual(a) == pytest.approx(1.1)


def test_before_its_first_response_a_replica_counts_as_slow_as_the_slowest() -> None:
    a, b, c = ReplicaState("a"), ReplicaState("b"), ReplicaState("c")
    loads = ReplicaLoads([a, b, c])
    assert loads.usual(a) == USUAL_SECONDS
    for member, seconds in ((b, 0.2), (c, 0.7)):
        member.in_flight += 1
        loads.ended(0.0, member, seconds, False)
    assert loads.usual(a) == 0.7


def test_failures_stop_counting_each_at_its_own_time() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    a.in_flight += 1
    loads.ended(0.0, a, 1.0, False)
    a.in_flight += 1
    loads.ended(0.0, a, 1.0, True)  # counts for a second
    for _ in range(100):
        a.in_flight += 1
        loads.ended(0.0, a, 0.01, False)
    a.in_flight += 1
    loads.ended(0.0, a, 0.01, True)  # counts for a tenth of it
    assert [loads.of(now, a) for now in (0.0, 0.11, 1.01)] == [2, 1, 0]


def test_the_number_of_counted_failures_is_bounded() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for _ in range(LINGERING_ENDS_MAX + 5):
        a.in_flight += 1
        loads.ended(0.0, a, 0.0, True)
    assert loads.of(0.0, a) == LINGERING_ENDS_MAX


def test_an_attempt_of_a_replica_that_left_does_not_change_other_replicas() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    loads = ReplicaLoads([a, b])
    a.in_flight += 1
    a.in_flight += 1
    loads.follow([b])
    loads.ended(1.0, a, 9.0, False)
    loads.ended(1.0, a, 9.0, True)
    assert (a.in_flight, loads.of(1.0, b), loads.usual(b)) == (0, 0, USUAL_SECONDS)


def overtake(loads: ReplicaLoads, member: ReplicaState, began_at: float, now: float) -> None:
    member.in_flight += 1
    loads.ended(now, member, now - began_at, None)
    loads.overtaken(now, member, now - began_at)


def test_an_overtaken_attempt_counts_for_its_age_doubled_with_each_in_a_row() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    now = 0.0
    for lasts in (0.25, 0.5, 1.0, 2.0, 4.0, OVERTAKEN_SECONDS_MAX, OVERTAKEN_SECONDS_MAX):
        overtake(loads, a, now, now + 0.25)
        now += 0.25
        assert (loads.of(now, a), loads.of(now + lasts * 0.99, a), loads.of(now + lasts, a)) == (1, 1, 0)
        now += lasts


def test_concurrent_overtaken_attempts_count_as_one_of_the_row() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    for number in range(20):
        overtake(loads, a, 0.0, 0.25 + number / 1000)
    assert loads.of(0.27, a) == 20
    assert loads.of(0.6, a) == 0
    overtake(loads, a, 1.0, 1.25)
    assert (loads.of(1.74, a), loads.of(1.75, a)) == (1, 0)


def test_only_a_response_faster_than_the_overtaken_attempt_ends_the_row() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    overtake(loads, a, 0.0, 0.25)
    for seconds, lasts in ((0.5, 0.5), (0.125, 0.25)):
        a.in_flight += 1
        loads.ended(1.0, a, seconds, False)
        overtake(loads, a, 1.0, 1.25)
        assert (loads.of(1.25 + lasts * 0.99, a), loads.of(1.25 + lasts, a)) == (1, 0)


def test_an_overtaken_attempt_does_not_make_its_replica_failing() -> None:
    a = ReplicaState("a")
    loads = ReplicaLoads([a])
    overtake(loads, a, 0.0, 0.25)
    assert not loads.failing(0.25, a)
