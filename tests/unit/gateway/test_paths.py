from __future__ import annotations

import pytest

from umbel.errors import RequestError
from umbel.gateway.paths import check_path, check_query


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
def test_a_path_that_every_parser_reads_alike_passes(raw: bytes) -> None:
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
        (b"/a\\b", "must be percent-encoded"),
        (b"/a#b", "must be percent-encoded"),
        (b"/a b", "must be percent-encoded"),
        (b"/\x00", "must be percent-encoded"),
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


def test_a_query_may_hold_what_a_uri_may() -> None:
    for raw in (b"", b"a=1&b=%2f%zz..", b"x?y/z:@!$'()*,;"):
        check_query(raw)
    for raw in (b"a=\xff", b"a b", b"a#b", b"a\x00", b"\x7f"):
        with pytest.raises(RequestError):
            check_query(raw)
