"""The sliding digest against exact quantiles of the samples themselves."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.quantile import CEILING, ERROR, FLOOR, SAMPLES_MIN, LatencyDigest

SLICES = 4
HAIR = 1e-9
LATENCY = st.one_of(
    st.floats(0, 2000),
    st.floats(-4, 4).map(lambda exponent: 10**exponent),
    st.sampled_from([0.0, FLOOR, FLOOR * (1 + ERROR), 0.1, CEILING]),
)
# Each batch: quarters of a slice since the previous batch, latencies, and their number.
BATCHES = st.lists(
    st.tuples(st.integers(0, 12), st.lists(LATENCY, min_size=1, max_size=20), st.integers(1, 20)),
    min_size=1,
    max_size=12,
)


@given(quantile=st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 0.999]), batches=BATCHES)
def test_the_percentile_is_within_its_error_of_the_exact_one(
    quantile: float, batches: list[tuple[int, list[float], int]]
) -> None:
    digest = LatencyDigest(quantile, window=float(SLICES), slices=SLICES)
    samples: list[tuple[float, float]] = []
    now = 0.0
    for quarters, latencies, times in batches:
        now += quarters / 4
        for latency in latencies * times:
            digest.add(now, latency)
            samples.append((now, latency))
        counted = sorted(latency for at, latency in samples if math.floor(at) > math.floor(now) - SLICES)
        assert digest.statistics(now).samples == len(counted)
        said = digest.percentile(now)
        if len(counted) < SAMPLES_MIN:
            assert said is None
            continue
        exact = min(CEILING, max(FLOOR, counted[math.ceil(quantile * len(counted)) - 1]))
        assert said is not None
        assert exact * (1 - HAIR) <= said <= exact * (1 + ERROR) * (1 + HAIR)


@given(latencies=st.lists(LATENCY, min_size=SAMPLES_MIN, max_size=300), asked=st.sets(st.integers(0, 300)))
def test_reading_the_percentile_does_not_change_later_percentiles(latencies: list[float], asked: set[int]) -> None:
    often, once = LatencyDigest(0.95), LatencyDigest(0.95)
    for number, latency in enumerate(latencies):
        often.add(0.0, latency)
        once.add(0.0, latency)
        if number in asked:
            often.percentile(0.0)
    assert often.percentile(0.0) == once.percentile(0.0)
