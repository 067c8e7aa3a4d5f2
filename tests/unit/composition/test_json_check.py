"""The check of JSON texts that are not decoded: what it accepts, what it leaves to decoding."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umbel.composition.decode import MAX_DEPTH, MAX_VALUES, BadBodyError, decode_strict
from umbel.composition.json_check import CHECK_MIN, checked_or_decoded, is_json

PARTS = [
    *'{}[],:"\\/ \n\t',
    *"0123456789-+.eE",
    "true", "false", "null", "NaN", "Infinity", '"a"', '""', '"a":', '{"a":1}', "[1,2]",
    "1e308", "1e309", "-1e400", "1E+999", "1e-400", "123.456e78", "0" * 30, "9" * 320,
    "\\u0041", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\u12", "\\n", "\\x", "ä", "\u2028", "\x00", "\x1f", "\x7f",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map(lambda parts: "".join(parts).encode())
WORDS = st.text('a"\\/,:{}[]0e\n\x00\x7fä€😀', max_size=6)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = VALUES.flatmap(
    lambda value: st.sampled_from(
        [json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()]
    )
)


def decodes(body: bytes) -> bool:
    try:
        decode_strict(body)
    except BadBodyError:
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON text in which some bytes are replaced, taken out or put in."""
    body = bytearray(draw(DOCUMENTS))
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(st.integers(0, len(body))), draw(st.integers(0, 2))
        body[at : at + size] = draw(st.binary(max_size=2) | TEXTS)
    return bytes(body)


@given(body=TEXTS | DOCUMENTS | damaged() | st.binary(max_size=8))
@example(b'"\xff"')
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud800"')
@example(b"[1] x")
@example(b"[1e999]")
@example(b"1e999")
@example(b"[1e+999 ]")
@example(b"[-1.5E0999\n]")
@example(b"[" + b"9" * 4301 + b"]")
@example(b"[" + b"9" * 309 + b".0]")
@example(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
def test_a_body_is_accepted_exactly_if_it_can_be_decoded(body: bytes) -> None:
    if not is_json(body):
        return  # It is decoded, so decoding decides.
    value = decode_strict(body)
    encoded = msgspec.json.encode({"part": checked_or_decoded(body + b" " * CHECK_MIN)})
    assert msgspec.json.decode(encoded) == {"part": value}


@given(body=TEXTS | damaged())
def test_a_body_that_cannot_be_decoded_fails_as_without_the_check(body: bytes) -> None:
    if decodes(body):
        checked_or_decoded(body)
        return
    with pytest.raises(BadBodyError) as decoding:
        decode_strict(body)
    with pytest.raises(type(decoding.value)) as checking:
        checked_or_decoded(body)
    assert str(checking.value) == str(decoding.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' [1, -2.5e10, "a\\u00e4\\ud83d\\ude00", null]\r\n',
        '{"name": "Łukasiewicz", "id": "1e4-56e78", "digest": "0e1234567890abcdef"}'.encode(),
        json.dumps([{"id": number, "price": number / 7} for number in range(2_000)]).encode(),
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"a":1,"a":2}',
    ],
)
def test_ordinary_texts_are_not_decoded(body: bytes) -> None:
    assert is_json(body)
    long = body + b" " * CHECK_MIN
    assert bytes(checked_or_decoded(long)) == long  # type: ignore[arg-type]  # a msgspec.Raw


def test_a_text_with_too_many_values_is_left_to_decoding() -> None:
    body = b"[" + b"1," * MAX_VALUES + b"1]"
    assert not is_json(body)
    with pytest.raises(BadBodyError, match="holds more than"):
        checked_or_decoded(body)


def test_a_text_that_may_be_too_deep_is_left_to_decoding() -> None:
    body = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    assert not is_json(body)
    with pytest.raises(BadBodyError, match="nested more than"):
        checked_or_decoded(body)
