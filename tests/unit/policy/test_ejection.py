from __future__ import annotations

import pytest

from umbel.policy.ejection import Ejection, EjectionRules


def fail(ejection: Ejection, place: int, now: float = 0.0, times: int = 5) -> None:
    for _ in range(times):
        ejection.ended(now, place, True)


def out(ejection: Ejection, now: float) -> set[int]:
    return set(ejection.out(now))


def test_the_fifth_failure_in_a_row_puts_a_replica_out_for_thirty_seconds() -> None:
    ejection = Ejection(2)
    fail(ejection, 1, now=10.0, times=4)
    assert out(ejection, 10.0) == set()
    fail(ejection, 1, now=11.0, times=1)
    assert out(ejection, 11.0) == out(ejection, 40.9) == {1}
    assert ejection.left(21.0, 1) == 20.0
    assert (ejection.left(21.0, 0), ejection.ejected) == (0.0, 1)
    assert out(ejection, 41.0) == set()


def test_an_answer_begins_the_count_anew() -> None:
    ejection = Ejection(2)
    for _ in range(3):
        fail(ejection, 0, times=4)
        ejection.ended(0.0, 0, False)
    assert out(ejection, 0.0) == set()


def test_each_ejection_lasts_longer_up_to_three_hundred_seconds() -> None:
    ejection = Ejection(2)
    now = 0.0
    lengths = []
    for _ in range(12):
        fail(ejection, 0, now)
        lengths.append(ejection.left(now, 0))
        now += lengths[-1]
    assert lengths == [30.0 * n for n in range(1, 11)] + [300.0, 300.0]


def test_ten_seconds_in_service_make_up_for_one_ejection() -> None:
    ejection = Ejection(2)
    now = 0.0
    for _ in range(4):
        fail(ejection, 0, now)
        now += ejection.left(now, 0)
    fail(ejection, 0, now + 29.9)  # two of four forgotten, and one more
    assert ejection.left(now + 29.9, 0) == 90.0
    now += 29.9 + 90.0
    fail(ejection, 0, now + 1000.0)
    assert ejection.left(now + 1000.0, 0) == 30.0


@pytest.mark.parametrize(
    ("count", "share", "room"),
    [(1, 0.5, 0), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (5, 0.5, 2), (3, 1.0, 2), (10, 0.7, 7), (9, 0.0, 0)],
)
def test_never_more_than_their_share_is_out_and_never_the_last(count: int, share: float, room: int) -> None:
    ejection = Ejection(count, EjectionRules(share=share))
    for place in range(count):
        fail(ejection, place, times=10)
    assert len(out(ejection, 0.0)) == room


def test_without_room_it_waits_for_the_first_failure_after_somebody_is_back() -> None:
    ejection = Ejection(2)
    fail(ejection, 0, now=0.0)
    fail(ejection, 1, now=1.0)
    assert out(ejection, 29.0) == {0}
    fail(ejection, 1, now=30.0, times=1)
    assert out(ejection, 30.0) == {1}


def test_what_ends_while_the_replica_is_out_does_not_count() -> None:
    ejection = Ejection(2)
    fail(ejection, 0, now=0.0)
    fail(ejection, 0, now=1.0, times=50)
    assert ejection.left(1.0, 0) == 29.0
    fail(ejection, 0, now=30.0, times=4)
    assert out(ejection, 30.0) == set()


def test_rules_that_make_no_sense_are_refused() -> None:
    for bad in ({"failures": 0}, {"base": 0.0}, {"base": 10.0, "maximum": 5.0}, {"share": 1.1}):
        with pytest.raises(ValueError, match="ejection needs"):
            EjectionRules(**bad)
