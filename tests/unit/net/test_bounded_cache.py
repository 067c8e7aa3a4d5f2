"""Bounded cache: eviction, order, and the bound on keys."""

from __future__ import annotations

from umbel.net.bounded_cache import BoundedCache


def test_an_excess_entry_evicts_the_oldest_and_is_counted() -> None:
    cache: BoundedCache[str, int] = BoundedCache(3)
    entries = cache.entries
    for number, key in enumerate("abcd"):
        cache.add(key, number)
    assert dict(entries) == {"b": 1, "c": 2, "d": 3}
    assert (entries is cache.entries, cache.dropped) == (True, 1)
    assert [cache.get(key) for key in "abcd"] == [None, 1, 2, 3]


def test_a_key_that_is_added_again_is_the_newest_and_drops_nothing() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        cache.add(key, value)
    assert (list(cache.entries.items()), cache.dropped) == ([("b", 2), ("a", 3)], 0)
    cache.add("c", 4)
    assert list(cache.entries) == ["a", "c"]


def test_a_key_that_is_too_large_is_not_kept() -> None:
    cache: BoundedCache[tuple[bytes, bytes], bool] = BoundedCache(9, 4, size_of=lambda pair: sum(map(len, pair)))
    for key in ((b"ab", b"cd"), (b"ab", b"cde")):
        cache.add(key, True)
        assert cache.takes(key) is (key in cache.entries)
    assert list(cache.entries) == [(b"ab", b"cd")]


def test_without_a_key_bound_keys_need_no_size() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1)
    cache.add(1, 1)
    assert dict(cache.entries) == {1: 1}
