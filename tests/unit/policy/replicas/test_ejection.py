"""Outlier ejection: when a replica is ejected, for how long, and how many at once."""

from __future__ import annotations

import pytest

from umbel.policy.replicas.ejection import Ejection, EjectionRules
from umbel.policy.replicas.replica_state import ReplicaState


def of(*members: ReplicaState, rules: EjectionRules | None = None) -> Ejection:
    ejection = Ejection(rules)
    ejection.follow(0.0, members)
    return ejection


def fail(ejection: Ejection, member: ReplicaState, now: float = 0.0, times: int = 5) -> None:
    for _ in range(times):
        ejection.ended(now, member, True)


def out(ejection: Ejection, now: float) -> set[str]:
    return set(ejection.out(now))


def test_the_fifth_failure_in_a_row_ejects_a_replica_for_thirty_seconds() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    fail(ejection, b, now=10.0, times=4)
    assert out(ejection, 10.0) == set()
    fail(ejection, b, now=11.0, times=1)
    assert out(ejection, 11.0) == out(ejection, 40.9) == {"b"}
    assert ejection.left(21.0, b) == 20.0
    assert (ejection.left(21.0, a), ejection.ejected) == (0.0, 1)
    assert out(ejection, 41.0) == set()


def test_a_response_resets_the_count_of_failures() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    for _ in range(3):
        fail(ejection, a, times=4)
        ejection.ended(0.0, a, False)
    assert out(ejection, 0.0) == set()


def test_each_ejection_lasts_longer_up_to_three_hundred_seconds() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    now = 0.0
    lengths = []
    for _ in range(12):
        fail(ejection, a, now)
        lengths.append(ejection.left(now, a))
        now += lengths[-1]
    assert lengths == [30.0 * n for n in range(1, 11)] + [300.0, 300.0]


def test_one_ejection_is_forgotten_after_ten_seconds_in_service() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    now = 0.0
    for _ in range(4):
        fail(ejection, a, now)
        now += ejection.left(now, a)
    fail(ejection, a, now + 29.9)  # two of four forgotten, and one more
    assert ejection.left(now + 29.9, a) == 90.0
    now += 29.9 + 90.0
    fail(ejection, a, now + 1000.0)
    assert ejection.left(now + 1000.0, a) == 30.0


@pytest.mark.parametrize(
    ("count", "share", "room"),
    [(1, 0.5, 0), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (5, 0.5, 2), (3, 1.0, 2), (10, 0.7, 7), (9, 0.0, 0)],
)
def test_at_most_the_share_of_replicas_is_ejected_and_never_the_last(count: int, share: float, room: int) -> None:
    members = [ReplicaState(str(number)) for number in range(count)]
    ejection = of(*members, rules=EjectionRules(share=share))
    for member in members:
        fail(ejection, member, times=10)
    assert len(out(ejection, 0.0)) == room


def test_a_refused_ejection_happens_with_the_next_failure_when_the_share_permits() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    fail(ejection, a, now=0.0)
    fail(ejection, b, now=1.0)
    assert out(ejection, 29.0) == {"a"}
    fail(ejection, b, now=30.0, times=1)
    assert out(ejection, 30.0) == {"b"}


def test_attempts_that_end_during_an_ejection_do_not_count() -> None:
    a, b = ReplicaState("a"), ReplicaState("b")
    ejection = of(a, b)
    fail(ejection, a, now=0.0)
    fail(ejection, a, now=1.0, times=50)
    assert ejection.left(1.0, a) == 29.0
    fail(ejection, a, now=30.0, times=4)
    assert out(ejection, 30.0) == set()


def test_an_ejected_replica_stays_ejected_in_a_new_set() -> None:
    a, b, c = ReplicaState("a"), ReplicaState("b"), ReplicaState("c")
    ejection = of(a, b)
    fail(ejection, b, now=0.0)
    ejection.follow(10.0, [b, c])
    assert out(ejection, 29.9) == {"b"}
    assert out(ejection, 30.0) == set()
    fail(ejection, b, now=30.0)
    assert ejection.left(30.0, b) == 60.0, "its first ejection is remembered"


def test_ejections_beyond_the_share_of_a_smaller_set_end_at_once() -> None:
    a, b, c, d = members = [ReplicaState(name) for name in "abcd"]
    ejection = of(*members)
    fail(ejection, b, now=1.0)
    fail(ejection, a, now=2.0)
    assert out(ejection, 2.0) == {"a", "b"}
    ejection.follow(3.0, [a, b, c])
    assert out(ejection, 3.0) == {"a"}
    assert ejection.left(3.0, b) == 0.0
    ejection.follow(4.0, [a])
    assert out(ejection, 4.0) == set(), "the last one never is"
    ejection.follow(5.0, [])
    ejection.follow(6.0, [a, d])
    fail(ejection, a, now=13.5)
    assert ejection.left(13.5, a) == 60.0
    assert ejection.ejected == 3


def test_a_replica_that_left_the_set_is_not_ejected_and_frees_its_share() -> None:
    a, b, c = ReplicaState("a"), ReplicaState("b"), ReplicaState("c")
    ejection = of(a, b)
    fail(ejection, a)
    ejection.follow(1.0, [b, c])
    fail(ejection, a, now=100.0)
    assert out(ejection, 100.0) == set()
    fail(ejection, c, now=100.0)
    assert out(ejection, 100.0) == {"c"}
    namesake = ReplicaState("a")
    ejection.follow(200.0, [b, namesake])
    fail(ejection, a, now=200.0)
    assert (out(ejection, 200.0), namesake.streak, ejection.left(200.0, namesake)) == (set(), 0, 0.0)


def test_invalid_ejection_rules_are_refused() -> None:
    for bad in ({"failures": 0}, {"base": 0.0}, {"base": 10.0, "maximum": 5.0}, {"share": 1.1}):
        with pytest.raises(ValueError, match="ejection needs"):
            EjectionRules(**bad)
