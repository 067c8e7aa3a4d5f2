"""Cache-Control of an answer, computed from the directives of its parts."""

from __future__ import annotations

import pytest

from umbel.composition.answer.cache_control import allows_shared, strictest_cache_control, to_private


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
def test_a_lifetime_may_have_any_number_of_digits(age: str, max_age: str, left: int) -> None:
    part = [("cache-control", f"max-age={max_age}"), ("age", age)]
    assert strictest_cache_control([part]) == f"max-age={left}"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("", "private"),
        ("public", "private"),
        ("Public , S-MaxAge=5,max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
        ("private, max-age=5", "private, max-age=5"),
        ('private="set-cookie", max-age=5', "private, max-age=5"),
        ('x="public, s-maxage=1", public', 'private, x="public, s-maxage=1"'),
        ('x="open, public', 'private, x="open'),
        ('"' * 20_000, "private, " + '"' * 20_000),
    ],
)
def test_to_private_replaces_directives_for_shared_caches(said: str, wanted: str) -> None:
    assert to_private(said) == wanted


@pytest.mark.parametrize(
    ("said", "shares"), [("public", True), ("s-maxage=5", True), ("max-age=5", False), ('x="public"', False)]
)
def test_directives_that_let_shared_caches_store_an_answer(said: str, shares: bool) -> None:
    assert allows_shared(said) is shares


@pytest.mark.parametrize(
    ("vary", "wanted"),
    [("*", "no-cache, max-age=60"), ("origin, *", "no-cache, max-age=60"), ("origin", "public, max-age=60")],
)
def test_a_part_with_vary_star_must_be_revalidated(vary: str, wanted: str) -> None:
    assert strictest_cache_control([[("cache-control", "public, max-age=60"), ("vary", vary)]]) == wanted
