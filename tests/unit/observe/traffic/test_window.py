"""Samples of figures, their differences, and percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.statistics.histogram import DURATIONS
from umbel.observe.traffic.window import OLD_S, STEP_S, FiguresWindow, percentiles, quantile, since

from .figures_of import SERVER, cells, figures_of

LABELS = ("/a", "GET", "200")


def test_the_first_sample_has_no_difference() -> None:
    change = FiguresWindow().change(5.0, [figures_of("1", **{SERVER: [(LABELS, cells(0.2))]})])
    assert (change.before, change.seconds) == (None, None)
    assert change.now == {SERVER: {LABELS: cells(0.2)}}


def test_a_difference_is_over_at_least_one_and_at_most_two_steps() -> None:
    window = FiguresWindow()
    spans = [window.change(float(second), []).seconds for second in range(40)]
    assert spans[:6] == [None, 1, 2, 3, 4, 5]
    assert {span for span in spans[6:] if span is not None} <= set(range(int(STEP_S), int(2 * STEP_S) + 1))
    assert None not in spans[1:]


def test_after_a_pause_there_is_no_difference_until_the_next_sample() -> None:
    window = FiguresWindow()
    for second in range(12):
        window.change(float(second), [])
    assert window.change(12 + OLD_S + 6, []).seconds is None
    assert window.change(12 + OLD_S + 7, []).seconds == 1


def test_metrics_that_no_view_reads_are_not_kept() -> None:
    assert FiguresWindow().change(0.0, [figures_of("1", umbel_refused_total=[(("400",), 3)])]).now == {}


def test_a_histogram_that_has_fallen_counts_as_unchanged() -> None:
    assert sum(since(cells(0.2), cells(0.2, 0.2))) == 0
    assert since(cells(0.2), None) == cells(0.2)


@pytest.mark.parametrize(
    ("values", "share", "seconds"),
    [
        ([0.01, 0.01], 0.5, 0.0075),  # The first of two values in the bucket from 5 ms to 10 ms.
        ([0.01, 0.01], 1.0, 0.01),
        ([0.001] * 99 + [7.0], 0.99, 0.005),
        ([0.001] * 98 + [7.0] * 2, 0.99, 6.25),  # The first of two values in the bucket from 5 s to 7.5 s.
        ([50.0], 0.5, DURATIONS[-1]),  # The last bucket has no upper bound: at least the bound below it.
    ],
)
def test_a_percentile_is_interpolated_within_its_bucket(values: list[float], share: float, seconds: float) -> None:
    assert quantile(cells(*values), DURATIONS, share) == pytest.approx(seconds)


@given(st.lists(st.floats(0.0, 9.9), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_in_the_bucket_of_the_nearest_rank(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, -(-int(share * 100) * len(values) // 100) - 1)]
    found = quantile(cells(*values), DURATIONS, share)
    assert found is not None
    upper = next(bound for bound in DURATIONS if exact <= bound)
    lower = max([bound for bound in DURATIONS if bound < upper], default=0.0)
    assert lower <= found <= upper + 1e-9


def test_without_values_there_are_no_percentiles() -> None:
    assert percentiles(None, DURATIONS) == percentiles(cells(), DURATIONS)
    assert percentiles(None, DURATIONS, "own_") == {"own_p50_ms": None, "own_p95_ms": None, "own_p99_ms": None}
