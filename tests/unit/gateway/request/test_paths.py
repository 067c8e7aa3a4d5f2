"""Rules for raw paths and queries, and relative redirects."""

from __future__ import annotations

import pytest

from umbel.core.errors import RequestError
from umbel.gateway.request.paths import check_path, check_query, merged_path, relative_redirect


@pytest.mark.parametrize(
    "raw",
    [
        b"/",
        b"/users/42",
        b"//twice",
        b"/.well-known/acme",
        b"/...",
        b"/a.b/c..d",
        b"/%41%2e",
        b"/caf%C3%A9",
        b"/%252f",
        b"/a;b=c,d@e:f!$&'()*+~",
        b"http://gateway.test/users",
        b"HTTPS://gateway.test",
    ],
)
def test_an_unambiguous_path_passes(raw: bytes) -> None:
    check_path(raw)


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (b"", "begins with a slash"),
        (b"x", "begins with a slash"),
        (b"*", "begins with a slash"),
        (b"example.com:443", "begins with a slash"),
        (b"http://gateway.test/\xff", "must be percent-encoded"),
        (b"/%zz", "two hex digits"),
        (b"/%", "two hex digits"),
        (b"/%4", "two hex digits"),
        (b"/%00", "NUL"),
        (b"/a%2fb", "slash"),
        (b"/a%2Fb", "slash"),
        (b"/a%5cb", "backslash"),
        (b"/a\\b", "even if it is percent-encoded"),
        (b"/a#b", "must be percent-encoded"),
        (b"/a b", "must be percent-encoded"),
        (b"/\x00", "even if it is percent-encoded"),
        (b"/\x7f", "must be percent-encoded"),
        (b"/\xff", "must be percent-encoded"),
        (b"/caf\xc3\xa9", "must be percent-encoded"),
        (b"/..", "dot segment"),
        (b"/a/../b", "dot segment"),
        (b"/a/..", "dot segment"),
        (b"/./a", "dot segment"),
        (b"/%2e%2e/a", "dot segment"),
        (b"/.%2E", "dot segment"),
        (b"/%2e", "dot segment"),
        (b"http://gateway.test/../a", "dot segment"),
        (b"/%ff", "UTF-8"),
        (b"/%C3", "UTF-8"),
        (b"/%ed%a0%80", "UTF-8"),
    ],
)
def test_an_ambiguous_path_is_refused_with_its_rule(raw: bytes, because: str) -> None:
    with pytest.raises(RequestError, match=because) as refused:
        check_path(raw)
    assert refused.value.status == 400


def test_a_query_may_hold_the_characters_of_a_uri() -> None:
    for raw in (b"", b"a=1&b=%2f%zz..", b"x?y/z:@!$'()*,;"):
        check_query(raw)
    for raw in (b"a=\xff", b"a b", b"a#b", b"a\x00", b"\x7f"):
        with pytest.raises(RequestError):
            check_query(raw)


@pytest.mark.parametrize(
    ("raw", "merged"),
    [
        (b"/c", None),
        (b"/c//d", None),
        (b"//c", b"/c"),
        (b"///c//d", b"/c//d"),
        (b"//", b"/"),
        (b"http://gateway.test//c", b"/c"),
        (b"http://gateway.test/c", None),
        (b"http://gateway.test", None),
    ],
)
def test_several_slashes_at_the_beginning_of_a_path_are_redirected(raw: bytes, merged: bytes | None) -> None:
    assert merged_path(raw) == merged


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://Gateway.test/a/?b=%2F&c", "/a/?b=%2F&c"),
        ("http://gateway.test:80/a", "/a"),
        ("http://gateway.test//evil.example/", "/evil.example/"),
        ("https://gateway.test/a", "https://gateway.test/a"),
        ("http://gateway.test:81/a", "http://gateway.test:81/a"),
        ("http://other.test/a", "http://other.test/a"),
    ],
)
def test_a_redirect_within_an_origin_is_relative(url: str, place: str) -> None:
    assert relative_redirect(url, "http", "gateway.test") == place
