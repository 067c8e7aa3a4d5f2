"""Bodies to values, and the bounds that keep the loop's stall short."""

from __future__ import annotations

import time

import pytest

from umbel.composition.decode import MAX_VALUES, BadBodyError, decode_json, decode_text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"[1,]",
        b"1 2",
        b"1e999",
        b"1" * 5000,
        b'"\xff"',
        b'"\xe2\x82',
        b'"\\ud800"',
        b"\xef\xbb\xbf1",
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 201 + b"]" * 201,
        b"[" * 1_000_000,
        b"<html>",
    ],
)
def test_what_is_no_json_or_too_deep_is_a_bad_body(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        decode_json(body)


def test_both_sides_of_the_bound_on_depth() -> None:
    assert decode_json(b"[" * 200 + b"]" * 200)
    hidden = b'["]",' * 201 + b"1" + b"]" * 201
    with pytest.raises(BadBodyError, match="200 deep"):
        decode_json(hidden)


def test_both_sides_of_the_bound_on_values() -> None:
    # A list of n numbers is n + 1 values.
    assert len(decode_json(b"[" + b"1," * (MAX_VALUES - 2) + b"1]")) == MAX_VALUES - 1
    with pytest.raises(BadBodyError, match="values"):
        decode_json(b"[" + b"1," * (MAX_VALUES - 1) + b"1]")


def test_commas_inside_strings_are_no_values() -> None:
    assert decode_json(b'["' + b"a, " * MAX_VALUES + b'"]')


def test_the_largest_allowed_json_holds_the_loop_only_shortly() -> None:
    body = b"[" + b'{"a":"bbbbbbbbbbbb"},' * (MAX_VALUES // 3) + b"1]"
    started = time.perf_counter()
    decode_json(body)
    # The promise is 50 ms; ten times that guards against a decoder that walks everything twice over.
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(("body", "charset"), [(b"\xff", None), (b"a", "no-such-charset"), (b"\xe9", "ascii")])
def test_text_that_is_not_of_its_charset_is_a_bad_body(body: bytes, charset: str | None) -> None:
    with pytest.raises(BadBodyError):
        decode_text(body, charset)


def test_text_is_decoded_in_its_charset() -> None:
    assert decode_text("é".encode("latin-1"), "iso-8859-1") == "é"
