"""Parsing and formatting of durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.config.schema.values.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_probability,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("2s", 2.0), ("1.5s", 1.5), ("10us", 1e-5), ("3m", 180.0), ("2h", 7200.0), ("1d", 86400.0)],
)
def test_a_duration_is_parsed_and_formatted(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1B", 1), ("1KB", 1000), ("64KiB", 65536), ("1.5MB", 1_500_000), ("16MiB", 16 * 2**20), ("2GB", 2 * 10**9)],
)
def test_a_size_is_parsed_and_formatted(text: str, count: int) -> None:
    assert parse_size(text) == count
    assert parse_size(format_size(count)) == count


@given(st.integers(1, 10**15))
def test_a_formatted_size_parses_to_itself(count: int) -> None:
    assert parse_size(format_size(count)) == count


@given(st.integers(1, 10**12))
def test_a_formatted_duration_of_whole_microseconds_parses_to_itself(micros: int) -> None:
    assert parse_duration(format_duration(micros / 1e6)) == pytest.approx(micros / 1e6)


NO_NUMBER = ["", "5", "s", "B", "1 s", "1 KB", "-1s", "+1B", "1e3s", "1kb", "\u0663s", "1s\n", "9" * 400 + "s"]
NO_TEXT = [5, 0.5, True, None, [], {}]


@pytest.mark.parametrize("value", [*NO_NUMBER, *NO_TEXT, "0s", "0.0ms", "1KB"])
def test_an_invalid_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", [*NO_NUMBER, *NO_TEXT, "0B", "0.5B", "1s"])
def test_an_invalid_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "count"), [("2.01MB", 2_010_000), ("32.3KB", 32_300), ("1.001KB", 1_001), ("0.6B", 1)]
)
def test_a_fraction_of_a_unit_is_rounded_to_the_nearest_byte(text: str, count: int) -> None:
    """2.01 * 1,000,000 is 2009999.99… as a float, and was cut to one byte less."""
    assert parse_size(text) == count


@pytest.mark.parametrize(("value", "probability"), [(0.05, 0.05), (1, 1.0), (0, 0.0), ("5%", 0.05), ("0%", 0.0)])
def test_a_probability_is_a_number_or_a_share(value: object, probability: float) -> None:
    assert parse_probability(value) == pytest.approx(probability)


@pytest.mark.parametrize("value", [5, -0.1, "0.05", "101%", True, None, float("nan")])
def test_what_is_no_probability_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"probability|ratio|share"):
        parse_probability(value)
