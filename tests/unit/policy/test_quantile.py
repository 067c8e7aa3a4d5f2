"""The latency digest: percentile, error, window and memory."""

from __future__ import annotations

import math

import pytest

from umbel.policy.quantile import CEILING, ERROR, FLOOR, SAMPLES_MIN, LatencyDigest, LatencyStatistics


def fill(digest: LatencyDigest, seconds: float, count: int = SAMPLES_MIN, now: float = 0.0) -> None:
    for _ in range(count):
        digest.add(now, seconds)


def test_there_is_no_percentile_before_a_hundred_samples() -> None:
    digest = LatencyDigest(0.95)
    assert digest.percentile(0.0) is None
    fill(digest, 0.02, SAMPLES_MIN - 1)
    assert digest.percentile(0.0) is None
    digest.add(0.0, 0.02)
    assert digest.percentile(0.0) == pytest.approx(0.02, rel=ERROR)
    assert digest.statistics(0.0) == LatencyStatistics(100, digest.percentile(0.0))


def test_the_percentile_is_the_nearest_rank_of_the_samples() -> None:
    digest = LatencyDigest(0.95)
    fill(digest, 0.01, 95)
    fill(digest, 1.0, 5)
    assert digest.percentile(0.0) == pytest.approx(0.01, rel=ERROR)
    digest.add(0.0, 1.0)
    assert digest.percentile(0.0) == pytest.approx(1.0, rel=ERROR)
    fill(digest, 0.01, 100)
    assert digest.percentile(0.0) == pytest.approx(0.01, rel=ERROR)


def test_the_percentile_is_never_below_the_true_one() -> None:
    for seconds in (0.00101, 0.0137, 0.5, 7.77, 999.0):
        digest = LatencyDigest(0.5)
        fill(digest, seconds)
        said = digest.percentile(0.0)
        assert said is not None
        assert seconds <= said <= seconds * (1 + ERROR)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, FLOOR), (1e-9, FLOOR), (FLOOR, FLOOR), (CEILING, CEILING), (1e9, CEILING)]
)
def test_the_percentile_lies_between_floor_and_ceiling(seconds: float, said: float) -> None:
    digest = LatencyDigest(0.95)
    fill(digest, seconds)
    assert digest.percentile(0.0) == said


def test_samples_leave_with_their_slice_of_the_window() -> None:
    digest = LatencyDigest(0.5, window=6.0, slices=6)
    fill(digest, 1.0, now=0.5)
    fill(digest, 0.01, now=3.0)
    assert digest.statistics(5.999).samples == 200
    assert digest.statistics(6.0) == LatencyStatistics(100, digest.percentile(6.0))
    assert digest.percentile(6.0) == pytest.approx(0.01, rel=ERROR)
    assert digest.statistics(8.999).samples == 100
    assert digest.statistics(9.0) == LatencyStatistics(0, None)


def test_after_a_long_pause_no_earlier_sample_is_left() -> None:
    digest = LatencyDigest(0.5)
    fill(digest, 1.0)
    assert digest.percentile(1e9) is None
    fill(digest, 0.01, now=1e9)
    assert digest.percentile(1e9) == pytest.approx(0.01, rel=ERROR)


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    digest = LatencyDigest(0.95)

    def cells() -> int:
        return sum(map(len, digest._slices)) + len(digest._sum)

    before = cells()
    for number in range(20_000):
        digest.add(number / 10, (number % 977) / 100)
    assert cells() == before < 2_100


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, math.nan])
def test_a_quantile_outside_0_to_1_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        LatencyDigest(quantile)


@pytest.mark.parametrize(("window", "slices"), [(0.0, 6), (math.inf, 6), (60.0, 0)])
def test_a_window_without_length_or_slices_is_refused(window: float, slices: int) -> None:
    with pytest.raises(ValueError, match="window"):
        LatencyDigest(0.5, window=window, slices=slices)
