"""Decoding of bodies, and the bounds on the time for which it blocks the event loop."""

from __future__ import annotations

import codecs
import gc
import json
import re
import time
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.source.adversarial import check_linear, texts_of_atoms
from umbel.composition.decode import (
    MAX_VALUES,
    BadBodyError,
    EmptyBodyError,
    _without_strings,
    decode_json,
    decode_text,
    deeper_than,
    is_surely_shallow,
    is_utf8,
)
from umbel.core.http.charsets import CODECS, codec_of
from umbel.core.model import Json


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
        b'"\\ud80"',
        b'"\\ud800',
        b"1\0",
        b'"\0\\ud800"',
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 201 + b"]" * 201,
        b"[" * 1_000_000,
        b"<html>",
    ],
)
def test_invalid_json_and_json_nested_too_deeply_are_bad_bodies(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        decode_json(body)


def test_json_is_decoded_at_the_bound_of_depth_and_refused_above() -> None:
    assert decode_json(b"[" * 200 + b"]" * 200)
    hidden = b'["]",' * 201 + b"1" + b"]" * 201
    with pytest.raises(BadBodyError, match="200 deep"):
        decode_json(hidden)


def test_json_is_decoded_at_the_bound_of_values_and_refused_above() -> None:
    # A list of n numbers has n + 1 values.
    assert len(decode_json(b"[" + b"1," * (MAX_VALUES - 2) + b"1]")) == MAX_VALUES - 1
    with pytest.raises(BadBodyError, match="values"):
        decode_json(b"[" + b"1," * (MAX_VALUES - 1) + b"1]")


def test_commas_inside_strings_are_no_values() -> None:
    assert decode_json(b'["' + b"a, " * MAX_VALUES + b'"]')


def test_the_largest_allowed_json_blocks_the_event_loop_only_briefly() -> None:
    body = b"[" + b'{"a":"bbbbbbbbbbbb"},' * (MAX_VALUES // 3) + b"1]"
    started = time.perf_counter()
    decode_json(body)
    # The bound is 100 ms. Five times that still detects a decoder that takes several passes.
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(("body", "charset"), [(b"\xff", None), (b"\xff", "no-such-charset"), (b"\xe9", "ascii")])
def test_text_that_is_invalid_in_its_charset_is_a_bad_body(body: bytes, charset: str | None) -> None:
    with pytest.raises(BadBodyError):
        decode_text(body, charset)


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("iso-8859-1", "latin-1"),
        ("UTF-8", "utf-8"),
        ("Windows-1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("ISO-8859-15", "iso8859-15"),
        ("Shift_JIS", "shift_jis"),
    ],
)
def test_text_is_decoded_in_its_charset(charset: str, codec: str) -> None:
    text = "あ" if codec == "shift_jis" else "é"
    assert decode_text(text.encode(codec), charset) == text


@pytest.mark.parametrize(
    "charset",
    (
        *("punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape", "rot13", "zlib", "bz2", "hex"),
        *("base64", "utf-7", "mbcs", "string-escape", "utf_8_sig", "charmap", "palmos", "", "a" * 1000),
        *("\u0131dna", "../utf-8", "utf 8"),
    ),
)
def test_a_python_codec_that_is_no_listed_charset_is_unknown(charset: str) -> None:
    assert codec_of(charset) is None
    with pytest.raises(BadBodyError, match="unknown charset"):
        decode_text(b"abc\xff", charset)
    with pytest.raises(BadBodyError):
        decode_json(b'"abc\xff"', lambda: charset)
    # The body is valid UTF-8, so the charset is not needed.
    assert decode_text("abc\u00e9".encode(), charset) == "abc\u00e9"
    assert decode_json('"abc\u00e9"'.encode(), lambda: charset) == "abc\u00e9"


@pytest.mark.parametrize(
    "body", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\xff\xfe", "\ufeff \n".encode("utf-16le")]
)
def test_a_body_without_a_value_raises_empty_body_error(body: bytes) -> None:
    with pytest.raises(EmptyBodyError):
        decode_json(body)


@pytest.mark.parametrize(
    ("body", "charset", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', None, {"a": 1}),
        (b'\xef\xbb\xbf"\xc3\xa9"', "iso-8859-1", "\u00e9"),
        (b'"\xe9"', "ISO-8859-1", "\u00e9"),
        (b'"\xe9"', "latin-1", "\u00e9"),
        (b'"\x80"', "windows-1252", "\u20ac"),
        ('"\u3042"'.encode("shift_jis"), "Shift_JIS", "\u3042"),
        # A body in UTF-8 is decoded as UTF-8, whatever charset is named.
        ('"\u00e9"'.encode(), "ISO-8859-1", "\u00e9"),
        ('"\u00e9"'.encode(), "us-ascii", "\u00e9"),
        ('"\u00e9"'.encode("utf-16"), None, "\u00e9"),
        ('"\u00e9"'.encode("utf-16be"), "UTF-16BE", "\u00e9"),
        (b'"\xe9\\ud800"', "latin1", "\u00e9\ufffd"),
    ],
)
def test_json_is_decoded_in_its_charset(body: bytes, charset: str | None, value: Json) -> None:
    assert decode_json(body, lambda: charset) == value


@pytest.mark.parametrize(("body", "charset"), [(b'"\xe9"', None), (b'"\xe9"', "utf-8"), (b'"\xe9"', "us-ascii")])
def test_json_that_is_invalid_in_its_charset_is_a_bad_body(body: bytes, charset: str | None) -> None:
    with pytest.raises(BadBodyError):
        decode_json(body, lambda: charset)


SURROGATES = (r"\ud83d", r"\uDE00", r"\udc00", r"\uD800", r"\\", r"\"", r"\n", "a", "ud800", r"\u0041")


@given(st.lists(st.sampled_from(SURROGATES), max_size=12))
def test_lone_surrogates_are_read_as_the_replacement_character(parts: list[str]) -> None:
    body = f'["{"".join(parts)}"]'
    # Python's decoder keeps lone surrogates and joins pairs.
    (expected,) = json.loads(body)
    assert decode_json(body.encode()) == [re.sub("[\ud800-\udfff]", "\ufffd", expected)]


def test_a_byte_order_mark_is_removed_from_text() -> None:
    assert decode_text(b"\xef\xbb\xbf\xc3\xa9", "iso-8859-1") == "\u00e9"
    assert decode_text(b"\xc3\xa9", "us-ascii") == "\u00e9"
    assert decode_text("\u00e9".encode("utf-16"), None) == "\u00e9"
    assert decode_text("\ufeff\u00e9".encode("utf-16le"), "utf-16le") == "\u00e9"


@pytest.mark.parametrize("charset", sorted(CODECS))
def test_each_listed_charset_is_decoded_in_linear_time(charset: str) -> None:
    assert codecs.lookup(charset).name == codecs.lookup(CODECS[charset]).name
    shapes = texts_of_atoms(("a", "\x80", "\xff", "\x81@", "\x00", "\x1b$B", "-", "\xe9"))
    check_linear(lambda body: decode_text(body, charset), shapes, binary=True)


MEGABYTE = 1_000_000
DEAR: dict[str, bytes] = {
    "commas before a string of escaped quotes": b"," * 200_001 + b'"' + b'\\"' * 399_000,
    "an open string of backslashes": b"," * 200_001 + b'"' + b"\\" * 799_000,
    "numbers at the end of the range": b"[" + b"1e308," * 166_000 + b"1]",
    "numbers below the range": b"[" + b"1e-320," * 142_000 + b"1]",
    "the longest numbers at the end": b"[" + b"1.7976931348623157e308," * 43_000 + b"1]",
    "half-way numbers": b"[" + b"9007199254740993e0," * 52_000 + b"1]",
    "short numbers with an exponent": b"[" + b"1e5," * 199_000 + b"1]",
    "large numbers without an exponent": b"[" + (b"17976931348623157" + b"0" * 291 + b".0,") * 3200 + b"1]",
    "small numbers without an exponent": b"[" + (b"0." + b"0" * 307 + b"17,") * 3200 + b"1]",
    "empty lists": b"[" + b"[]," * 99_000 + b"1]",
    "deep lists": b"[" + (b"[" * 199 + b"]" * 199 + b",") * 1000 + b"1]",
    "objects": b"[" + b'{"a":[]},' * 66_000 + b"1]",
    "escaped strings": b"[" + b'"\\u0000",' * 110_000 + b"1]",
    "many keys": b"{" + b",".join(b'"%x":1' % number for number in range(100_000)) + b"}",
    "one long number": b"1" * MEGABYTE,
    "lone surrogates": b'"' + b"\\ud800" * 166_000 + b'"',
    "pairs and a lone surrogate": b'"' + b"\\ud83d\\ude00" * 83_000 + b'\\ud800"',
    "backslashes and a lone surrogate": b'"' + b"\\\\" * 499_000 + b'\\ud800"',
    "UTF-16": ('"' + "\\ud800" * 83_000 + '"').encode("utf-16"),
    "one long fraction": b"0." + b"1" * MEGABYTE,
}


@pytest.mark.parametrize("name", DEAR)
def test_a_megabyte_of_json_blocks_the_event_loop_only_briefly(name: str) -> None:
    took = []
    for _ in range(3):
        # Without the garbage collector, which would also search the objects of other tests.
        gc.disable()
        try:
            started = time.thread_time()
            with suppress(BadBodyError):
                decode_json(DEAR[name])
            took.append(time.thread_time() - started)
        finally:
            gc.enable()
    # The bound is 100 ms, which `make bench-stalls` measures. An unbounded decoder takes from 0.4 s to half an hour.
    assert min(took) < 0.35


def test_json_is_decoded_in_linear_time() -> None:
    atoms = (
        "[",
        "]",
        "{",
        '{"a":',
        ",",
        '"',
        '\\"',
        "\\",
        "1e308,",
        "[],",
        '"a",',
        "0.1,",
        "9",
        "\\u0000",
        " ",
        "\\ud800",
        "\\udc00",
        "\0",
    )
    check_linear(decode_json, texts_of_atoms(atoms, ("", "[", '["'), ("", "1]")), binary=True)
    check_linear(_without_strings, texts_of_atoms(('"', "\\", ",", "a")), binary=True)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1e400", "1" * 400 + ".0", "1.e5", "1e", "01e5", "1e+", "+1e5"])
@pytest.mark.parametrize("fill", [0, 5000])
def test_an_invalid_number_is_a_bad_body_in_short_and_long_bodies(number: str, fill: int) -> None:
    with pytest.raises(BadBodyError):
        decode_json(f'["{"x" * fill}",1e5,{number}]'.encode())


def test_a_hundred_thousand_ordinary_numbers_are_decoded() -> None:
    body = b"[" + b",".join(b"%.4f" % (number / 7) for number in range(100_000)) + b"]"
    assert decode_json(body)[7] == 1.0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=JSON_VALUES, fill=st.sampled_from([0, 5000]))
def test_a_long_body_decodes_to_the_same_value_as_a_short_one(value: Json, fill: int) -> None:
    body = json.dumps([value, "x" * fill, 1e300], ensure_ascii=False).encode()
    decoded = decode_json(body)
    assert decoded[0] == msgspec.json.decode(json.dumps(value).encode())
    assert decoded[2] == 1e300


STRINGS = st.lists(st.sampled_from(['"', "\\\\", '\\"', ",", "[", "a", "{"]), max_size=8).map("".join)


@given(outside=st.lists(STRINGS.map(lambda text: text.replace('"', "").replace("\\", "")), min_size=3, max_size=3))
def test_strings_are_removed_from_json_texts(outside: list[str]) -> None:
    for inside in (r'"\""', r'"\\"', '""', r'"a,\\\",["', r'"\\\\"'):
        text = f"{outside[0]}{inside}{outside[1]}{inside}{outside[2]}"
        assert _without_strings(text.encode()) == "".join(outside).encode()


BRACKETED = st.text(alphabet='[]{}"\\a,', max_size=6)
NESTED = st.recursive(
    st.integers() | BRACKETED,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(BRACKETED, inner, max_size=3)
        | st.tuples(st.integers(1, 25), inner).map(lambda pair: nested(*pair))
    ),
    max_leaves=12,
)


def nested(levels: int, value: Json) -> Json:
    """The value in this many objects and lists, in turn."""
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


@given(value=NESTED, limit=st.integers(1, 40), ascii_only=st.booleans())
def test_a_text_that_is_surely_shallow_is_not_deeper(value: Json, limit: int, ascii_only: bool) -> None:
    if is_surely_shallow(json.dumps(value, ensure_ascii=ascii_only).encode(), limit):
        assert not deeper_than(value, limit)


@pytest.mark.parametrize("name", ["plain", 'an "escaped" name', "a \\ sign", "a [name] with {brackets}"])
def test_ordinary_json_with_many_brackets_needs_no_walk(name: str) -> None:
    item: Json = {"name": name, "tags": ["new", "sale"], "address": {"zip": "8001", "lines": []}}
    assert is_surely_shallow(json.dumps({"items": [item] * 1000}).encode(), 200)


@pytest.mark.parametrize("closers", ["]", "]]", "}", '"]', "\\]", '\\"]'])
def test_brackets_in_strings_hide_no_depth(closers: str) -> None:
    value: Json = [closers]
    for _ in range(199):
        value = [closers, value]
    assert len(decode_json(json.dumps(value).encode())) == 2
    with pytest.raises(BadBodyError, match="200 deep"):
        decode_json(json.dumps([value]).encode())


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("before", [16 * 1024 - 4, 16 * 1024 - 3, 16 * 1024 - 2, 16 * 1024 - 1, 16 * 1024])
def test_utf8_is_recognised_also_where_a_piece_ends_within_a_character(character: str, before: int) -> None:
    encoded = character.encode()
    assert is_utf8(b"a" * before + encoded)
    assert is_utf8(b"a" * before + encoded + b"a" * 16 * 1024)
    assert not is_utf8(b"a" * before + encoded[:-1])
    assert not is_utf8(b"a" * before + encoded[:-1] + b"a" * 16 * 1024)
    assert not is_utf8(b"a" * before + encoded[1:])
