"""Forwarded header fields, query parameters and cookies."""

from __future__ import annotations

import pytest

from umbel.composition.request.forward import forwarded_fields, forwarded_query, query_sizes
from umbel.core.http.forward_all import star_leaves_out


@pytest.mark.parametrize(
    ("raw", "names", "sent"),
    [
        (b"", ["*"], []),
        (b"a=1&&b", ["*"], ["a=1&&b"]),
        (b"a=1&b&a=2", ["a"], ["a=1", "a=2"]),
        (b"%61=1&A=2", ["a"], ["%61=1"]),
        (b"a+b=1&a%20b", ["a b"], ["a+b=1", "a%20b"]),
        (b"caf%C3%A9=1&caf%E9=2", ["café"], ["caf%C3%A9=1"]),
        (b"=1", ["a"], []),
    ],
)
def test_named_query_parameters_are_forwarded_unchanged(raw: bytes, names: list[str], sent: list[str]) -> None:
    assert forwarded_query(raw, names) == sent


def test_bytes_that_no_target_may_hold_are_encoded() -> None:
    assert forwarded_query(b"q=caf\xc3\xa9 #\x00\x7f'\"<%", ["q"]) == ["q=caf%C3%A9%20%23%00%7F'\"<%"]
    assert forwarded_query(b"caf\xc3\xa9", ["*"]) == ["caf%C3%A9"]


def test_query_sizes_are_summed_by_name() -> None:
    assert dict(query_sizes(b"a=1&b=2&a=33", ["a"])) == {"a": 7}
    assert dict(query_sizes(b"a=1&b=2", ["*"])) == {"": 7}


def test_a_star_leaves_out_the_deadline_header() -> None:
    headers = {"x-deadline": "5", "x-a": "1", "authorization": "s"}
    assert dict(forwarded_fields(headers, "x-deadline")) == {"x-a": "1"}


@pytest.mark.parametrize("name", ["x_forwarded_for", "content_type", "if-range", "proxy", "proxy-x", "te", "via"])
def test_header_fields_that_a_star_leaves_out(name: str) -> None:
    assert star_leaves_out(name)


@pytest.mark.parametrize("name", ["accept", "x-forward", "contents", "origin", "referer", "proxied", "x-api-key"])
def test_header_fields_that_a_star_includes(name: str) -> None:
    assert not star_leaves_out(name)
