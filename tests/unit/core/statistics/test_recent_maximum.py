"""RecentMaximum: the greatest value of the last seconds."""

from __future__ import annotations

from umbel.core.statistics.recent_maximum import RecentMaximum


def test_a_value_counts_until_a_greater_one_comes_or_its_time_is_over() -> None:
    recent = RecentMaximum(60.0)
    assert recent.at(0.0) == 0.0
    for value, now in ((0.6, 10.0), (0.1, 20.0), (0.2, 30.0)):
        recent.add(value, now)
    assert [recent.at(now) for now in (30.0, 70.0, 70.1, 90.0, 90.1)] == [0.6, 0.6, 0.2, 0.2, 0.0]
    recent.add(0.9, 65.0)
    assert recent.at(65.0) == 0.9


def test_values_that_do_not_count_any_more_are_not_kept() -> None:
    recent = RecentMaximum(60.0)
    for second in range(10_000):
        recent.add(1 / (second + 1), float(second))
    assert len(recent._values) == 61
