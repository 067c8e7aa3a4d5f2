"""The caching rules of an answer's parts, whatever an upstream says in them."""

from __future__ import annotations

import pytest

from umbel.composition.merge import strictest_cache_control


@pytest.mark.parametrize(
    ("age", "max_age", "left"),
    [
        ("0", "9" * 5000, 2**31),
        ("9" * 5000, "60", 0),
        ("9" * 5000, "9" * 5000, 0),
        ("0" * 5000 + "5", "0" * 5000 + "60", 55),
        ("0", '"60"', 60),
        ("\u0663", "60", 60),
        ("0", "-60", 0),
        ("0", "", 0),
    ],
)
def test_a_lifetime_of_any_number_of_digits_is_a_lifetime(age: str, max_age: str, left: int) -> None:
    part = [("cache-control", f"max-age={max_age}"), ("age", age)]
    assert strictest_cache_control([part]) == f"max-age={left}"
