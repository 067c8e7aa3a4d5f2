"""The hedge delay: the lower median of the percentiles of replicas."""

from __future__ import annotations

import pytest

from umbel.policy.hedge_delay import COMPUTED_EVERY, REPLICAS_MAX, HedgeDelay
from umbel.policy.quantile import SAMPLES_MIN

QUICK, LATE = 0.01, 0.5


def fed(**seconds: float) -> HedgeDelay:
    """A hundred attempts at each replica, of the given duration."""
    latencies = HedgeDelay(0.95)
    for _ in range(SAMPLES_MIN):
        for name, each in seconds.items():
            latencies.add(0.0, name, each)
    return latencies


@pytest.mark.parametrize(
    ("late", "replicas", "seconds"),
    [(0, 1, QUICK), (1, 2, QUICK), (1, 3, QUICK), (2, 4, QUICK), (2, 3, LATE), (1, 1, LATE)],
)
def test_the_delay_is_the_lower_median_of_the_replicas_percentiles(late: int, replicas: int, seconds: float) -> None:
    latencies = fed(**{f"r{number}": LATE if number < late else QUICK for number in range(replicas)})
    assert latencies.percentile(0.0) == pytest.approx(seconds, rel=0.06)


def test_a_replica_with_few_samples_is_ignored() -> None:
    latencies = fed(a=LATE)
    for _ in range(SAMPLES_MIN - 1):
        latencies.add(0.0, "b", QUICK)
    assert latencies.percentile(0.0) == pytest.approx(LATE, rel=0.06)
    latencies.add(0.0, "b", QUICK)
    assert latencies.percentile(COMPUTED_EVERY) == pytest.approx(QUICK, rel=0.06)


@pytest.mark.parametrize("names", [["a", "b"], [None], [None, "a"]])
def test_without_a_replica_with_enough_samples_the_delay_is_that_of_all_attempts(names: list[str | None]) -> None:
    latencies = HedgeDelay(0.5)
    for number in range(SAMPLES_MIN):
        assert latencies.percentile(0.0) is None
        latencies.add(0.0, names[number % len(names)], QUICK)
    assert latencies.percentile(0.0) == pytest.approx(QUICK, rel=0.06)
    assert latencies.statistics(0.0).samples == SAMPLES_MIN


def test_old_samples_are_dropped() -> None:
    latencies = fed(a=QUICK, b=LATE)
    assert latencies.percentile(30.0) is not None
    assert latencies.statistics(130.0).seconds is None
    assert latencies.percentile(130.0) is None


def test_of_very_many_replicas_the_percentile_is_of_all_attempts() -> None:
    latencies = HedgeDelay(0.95)
    for _ in range(10):
        for number in range(REPLICAS_MAX + 1):
            latencies.add(0.0, str(number), QUICK)
    assert latencies.percentile(0.0) == pytest.approx(QUICK, rel=0.06)
    assert latencies.statistics(0.0).samples == 10 * (REPLICAS_MAX + 1)
