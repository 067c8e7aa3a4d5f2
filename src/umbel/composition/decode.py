"""Bytes to values: JSON and text under bounds that keep the event loop's stall short.

msgspec keeps the GIL while it decodes, so a thread would not help. What bounds the stall is what is counted before: the
values, at some 0.2 µs each, and the bytes, whose dearest are numbers with an exponent. 1 MB takes less than 100 ms
whatever it holds, and 64 KiB less than 20 ms. Each step here takes time linear in the body.
"""

from __future__ import annotations

import math

import msgspec

from ..charsets import codec_of
from ..model import Json

MAX_DEPTH = 200
MAX_VALUES = 200_000

# msgspec takes up to 12 µs for a number whose exponent is near the end of a double's range, 50 times as long as
# float(). In a body of up to this size that does not matter; a larger one is looked through for exponents.
_LOOKED_THROUGH_MIN = 4096
_EXPONENT = b"0e"
_AS_EXPONENT = bytes.maketrans(b"123456789.E", b"0000000000e")


class BadBodyError(ValueError):
    """A body that is not what it should be. The text is one sentence without any of the body's content."""


def decode_json(body: bytes) -> Json:
    """The value of a JSON text (RFC 8259) of at most ``MAX_VALUES`` values and ``MAX_DEPTH`` levels.

    Raises:
        BadBodyError: it is no JSON (NaN, bad UTF-8 and numbers out of range included), or past a bound.
    """
    size = len(body)
    # A value has a byte at least, and most bodies are smaller than they may hold values.
    if (
        size > MAX_VALUES
        and _values_at_most(body) > MAX_VALUES
        and _values_at_most(_without_strings(body)) > MAX_VALUES
    ):
        raise BadBodyError(f"the JSON holds more than {MAX_VALUES} values")
    decode = _decode
    if size > _LOOKED_THROUGH_MIN and _EXPONENT in body.translate(_AS_EXPONENT):
        decode = _decode_with_exponents
    try:
        value = decode(body)
    except RecursionError as error:
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadBodyError("the body is not valid JSON") from error
    # No text with fewer brackets than that can be too deep, so most bodies are never walked.
    if size > MAX_DEPTH and body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep")
    return value


def values_in(body: bytes) -> int:
    """How many values a JSON text holds, within a factor of two."""
    return _values_at_most(_without_strings(body))


def decode_text(body: bytes, charset: str | None) -> str:
    """The text of a body in its charset (one of ``charsets.CODECS``), UTF-8 where none is named.

    Raises:
        BadBodyError: the charset is unknown, or the bytes are not of it.
    """
    codec = "utf-8" if charset is None else codec_of(charset)
    if codec is None:
        raise BadBodyError("the body is in a charset that is not known here")
    try:
        return body.decode(codec)
    except UnicodeError as error:
        raise BadBodyError("the body is not text in its charset") from error


def _finite(text: str) -> float:
    """A number with a point or an exponent, as msgspec reads it: one out of range is no number."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("out of range")
    return value


_decode = msgspec.json.Decoder().decode
_decode_with_exponents = msgspec.json.Decoder(float_hook=_finite).decode


def _values_at_most(body: bytes) -> int:
    """An upper bound of the values in a JSON text, counted without decoding (commas in strings count too)."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def _without_strings(body: bytes) -> bytes:
    """What stands outside of the strings of a JSON text: every second part between quotes that are not escaped."""
    return b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def _deeper_than(value: Json, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
