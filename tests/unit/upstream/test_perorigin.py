from __future__ import annotations

import httpx
import pytest

from umbel.upstream.perorigin import ORIGINS_MAX, PerOrigin, key_of, name_of


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a/x?y", "http://a"),
        ("http://a:80/", "http://a"),
        ("https://a:8443", "https://a:8443"),
        ("http://A", "http://a"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, name: str) -> None:
    assert name_of(key_of(httpx.URL(url))) == name


def test_each_origin_has_its_own_and_keeps_it() -> None:
    kept: PerOrigin[list[int]] = PerOrigin(lambda _: [])
    one, other = (key_of(httpx.URL(url)) for url in ("http://a", "https://a"))
    kept.of(one).append(1)
    assert (kept.of(one), kept.of(other)) == ([1], [])
    assert kept.snapshot(len) == {"http://a": 1, "https://a": 0}


def test_what_was_not_asked_for_the_longest_is_forgotten_at_the_bound() -> None:
    kept: PerOrigin[list[int]] = PerOrigin(lambda _: [])
    for number in range(ORIGINS_MAX):
        kept.of(("http", str(number), None)).append(number)
    assert kept.of(("http", "0", None)) == [0]
    kept.of(("http", "new", None))
    assert kept.of(("http", "0", None)) == [0]
    assert len(kept.snapshot(len)) == ORIGINS_MAX
    assert kept.of(("http", "1", None)) == []


def test_it_is_made_of_its_key() -> None:
    kept = PerOrigin(name_of)
    assert kept.of(("http", "a", 81)) == "http://a:81"
