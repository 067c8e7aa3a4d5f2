"""Parser of response heads: strictness compared with llhttp, and that caches never change a result."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.http1 import response_head
from umbel.http1.errors import MalformedMessageError
from umbel.http1.response_head import Head, head_of


class Llhttp:
    """Parse a head with llhttp, for comparison."""

    def __init__(self, raw: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.reason = b""
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


_NAMES = ["Content-Type", "x", "X-Odd!#$%&'*+-.^_`|~9", "Date", "ETag", "x y", "é", "", "x:", " x", "x ", "Server\t"]
_VALUES = ["a", "a b", "", " padded\t", "two\tparts", "a\x00b", "\x7f", "é", "x\r", "\n", "\r\n folded", ":", "a" * 300]
_FIELDS = st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES) | st.text(max_size=12))
_START = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1  200 OK", "HTTP/1.1 20 OK"]
)


@given(_START, st.lists(_FIELDS, max_size=6))
def test_llhttp_accepts_each_accepted_head_with_the_same_result(start: str, fields: list[tuple[str, str]]) -> None:
    text = "\r\n".join([start, *(f"{name}: {value}" for name, value in fields)])
    raw = text.encode("utf-8", "surrogatepass")
    if b"\r\n\r\n" in raw:
        return
    try:
        ours = head_of(raw)
    except MalformedMessageError:
        return
    judge = Llhttp(raw + b"\r\n\r\n")
    assert (ours.status, ours.reason) == (judge.status, judge.reason)
    # llhttp keeps tabs at the end of a value, which do not belong to the value (RFC 9110 section 5.5).
    assert [(name, value) for name, _, value in ours.fields] == [(name, value.strip()) for name, value in judge.fields]
    assert all(lower == name.lower() for name, lower, _ in ours.fields)


@given(_START, st.lists(_FIELDS, max_size=6))
def test_a_cached_head_equals_the_first_result(start: str, fields: list[tuple[str, str]]) -> None:
    raw = "\r\n".join([start, *(f"{name}: {value}" for name, value in fields)]).encode("utf-8", "surrogatepass")
    for memory in (response_head._heads, response_head._status_lines, response_head._fields):
        memory.entries.clear()
    assert outcome_of(raw) == outcome_of(raw)


def outcome_of(raw: bytes) -> Head | str:
    try:
        return head_of(raw)
    except MalformedMessageError as error:
        return error.detail


def test_the_caches_are_bounded() -> None:
    for number in range(5000):
        head_of(b"HTTP/1.1 200 %d\r\nX-Number: %d" % (number, number))
    assert len(response_head._heads.entries) <= 128
    assert len(response_head._status_lines.entries) <= response_head.KNOWN_MAX
    assert len(response_head._fields.entries) <= response_head.KNOWN_MAX


@pytest.mark.parametrize(
    "field",
    [
        b"Set-Cookie: a=hidden",
        b"X-Token: hidden",
        b"Connection: set-cookie\r\nSet-Cookie: a=hidden",
        b"X-Long: hidden" + b"x" * 600,
    ],
)
def test_a_line_that_may_be_secret_or_is_long_is_not_cached(field: bytes) -> None:
    for memory in (response_head._heads, response_head._status_lines, response_head._fields):
        memory.entries.clear()
    head_of(b"HTTP/1.1 200 OK\r\n" + field)
    kept = b"".join([*response_head._heads.entries, *response_head._fields.entries])
    assert b"hidden" not in kept
