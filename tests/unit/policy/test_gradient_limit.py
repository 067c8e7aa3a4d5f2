"""The gradient limit: how it grows, shrinks and learns the usual duration."""

from __future__ import annotations

import math

import pytest

from umbel.policy.gradient_limit import GradientLimit


def window(limit: GradientLimit, number: int, seconds: float, *, in_flight: int | None = None, calls: int = 10) -> int:
    """One more window, in which every call took ``seconds``; as busy as it may be by default.

    The limit that it returns is what the windows before have led to.
    """
    for call in range(calls):
        limit.ended(number + call / calls, seconds, limit.limit if in_flight is None else in_flight)
    return limit.limit


def settled(seconds: float = 0.1, *, initial: int = 100) -> GradientLimit:
    """A limit that has learned the usual duration and is still at ``initial``, because its windows were not pressed."""
    limit = GradientLimit(initial=initial)
    for number in range(20):
        window(limit, number, seconds, in_flight=1)
    assert limit.limit == initial
    return limit


def test_a_pressed_limit_grows_by_a_fifth_of_its_root_at_the_usual_duration() -> None:
    limit = settled()
    assert window(limit, 20, 0.1) == 100
    assert window(limit, 21, 0.1) == 102
    assert limit.statistics().usual == pytest.approx(0.1)


def test_the_limit_shrinks_by_the_gradient_at_twice_the_usual_duration() -> None:
    limit = settled()
    window(limit, 20, 0.2)
    window(limit, 21, 0.2)
    assert limit.statistics().usual == pytest.approx(0.1)
    assert limit.limit == int(100 * 0.8 + 20 * 0.1 * 1.25 / 0.2)


def test_the_limit_does_not_shrink_at_a_quarter_above_the_usual_duration() -> None:
    limit = settled()
    for number in range(20, 30):
        window(limit, number, 0.124)
    assert limit.limit > 110


def test_outliers_lower_the_limit_by_at_most_a_tenth_per_window() -> None:
    limit = settled()
    before = window(limit, 20, 1000.0)
    assert window(limit, 21, 1000.0) >= before * 0.9


def test_an_unused_limit_does_not_change_with_slow_calls() -> None:
    limit = settled()
    for number in range(20, 40):
        window(limit, number, 5.0, in_flight=49)
    assert limit.limit == 100


def test_a_window_with_few_calls_does_not_count() -> None:
    limit = settled()
    window(limit, 20, 0.1, in_flight=1)
    for number in range(21, 60):
        window(limit, number, 50.0, calls=9)
    assert limit.limit == 100


def test_the_limit_stays_within_its_bounds() -> None:
    limit = GradientLimit()
    assert limit.limit == 20
    for number in range(1000):
        window(limit, number, 0.01)
    assert limit.limit == 1000
    for number in range(1000, 1400):
        window(limit, number, 0.01 * 1.1 ** (number - 1000))
    assert limit.limit == 4


def test_after_a_long_overload_the_usual_duration_falls_within_a_minute() -> None:
    limit = settled()
    number = 20
    for number in range(20, 2000):
        window(limit, number, 1.0, in_flight=1)
    overloaded = limit.statistics().usual
    assert overloaded is not None
    assert overloaded > 0.9
    for number in range(2000, 2030):
        window(limit, number, 0.1, in_flight=1)
    assert limit.statistics().usual == pytest.approx(0.2, rel=0.1)


def test_calls_with_a_duration_of_zero_let_the_limit_grow() -> None:
    limit = GradientLimit()
    for number in range(5):
        window(limit, number, 0.0)
    assert limit.limit > 20


@pytest.mark.parametrize(("capacity", "seconds"), [(10, 0.05), (100, 0.01), (300, 0.2)])
def test_after_an_hour_of_full_load_the_limit_is_near_the_upstreams_capacity(capacity: int, seconds: float) -> None:
    """The upstream serves ``capacity`` calls at once; more of them share it, so each takes longer."""
    limit = GradientLimit()
    seen = [window(limit, number, seconds * max(1.0, limit.limit / capacity)) for number in range(3600)]
    # The limit began at 20, and a quarter above the usual duration of that time is tolerated.
    knee = 1.25 * max(capacity, 24)
    assert all(capacity <= each <= knee + 0.2 * math.sqrt(knee) + 1 for each in seen[300:])
    assert max(seen[300:1800]) == max(seen[1800:])


@pytest.mark.parametrize(("seconds", "windows"), [(1.0, 200), (0.3, 200), (0.15, 400)])
def test_a_lasting_slowdown_is_learned_at_the_minimum_limit(seconds: float, windows: int) -> None:
    limit = settled()
    seen = [window(limit, number, seconds) for number in range(20, 20 + windows)]
    assert min(seen) == 4
    assert limit.statistics().usual == pytest.approx(seconds, rel=0.25)
    assert limit.limit > 50


@pytest.mark.parametrize("bad", [{"minimum": 0}, {"initial": 3}, {"maximum": 10}])
def test_invalid_bounds_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="minimum <= initial <= maximum"):
        GradientLimit(**bad)
