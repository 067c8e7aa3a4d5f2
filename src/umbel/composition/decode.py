"""Body decoding: JSON and text, under bounds that limit how long the event loop is blocked.

Three deviations that browsers accept are repaired: a byte order mark, a listed charset other than UTF-8, a lone
surrogate. A body is searched for them only after strict decoding has refused it. docs/upstream.md lists what stays
refused, with the reasons.

msgspec holds the GIL while it decodes, so a thread would not help. The bounds are checked before: the number of values,
at some 0.2 µs each, and the bytes, of which numbers with an exponent cost most. 1 MB takes less than 100 ms
whatever it holds, and 64 KiB less than 20 ms. Each step here takes time linear in the body.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable

import msgspec

from ..core.http.charsets import codec_of
from ..core.model import Json

ACCEPT = {"json": b"application/json", "text": b"*/*", "none": b"*/*"}
"""The Accept field of a call by its ``decode``, unless its headers say otherwise."""

MAX_DEPTH = 200
MAX_VALUES = 200_000

# msgspec takes up to 12 µs for a number whose exponent is near the end of a double's range, 50 times as long as
# float(). In a body of up to this size that does not matter; a larger one is searched for exponents.
_EXPONENT_SEARCH_MIN = 4096
_EXPONENT = b"0e"
_AS_EXPONENT = bytes.maketrans(b"123456789.E", b"0000000000e")


# An escape of one half of a surrogate pair without the other half beside it. In the text that is looked at each
# backslash begins an escape, so the pattern needs no memory of what came before.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_WHITESPACE = b" \t\r\n"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

CharsetSource = Callable[[], str | None]
"""Gives the charset of a body's Content-Type; called only if the body is no JSON in UTF-8."""


class BadBodyError(ValueError):
    """A body cannot be decoded, or is past a bound. The message is one sentence without any of the body's content."""


class EmptyBodyError(BadBodyError):
    """A body without a value: no bytes, or nothing but whitespace and a byte order mark."""


def _no_charset() -> None:
    """The charset of a body whose Content-Type names none."""


class NotStrictJsonError(BadBodyError):
    """A body that strict decoding refuses. ``decode_repaired`` may accept it."""


def decode_json(body: bytes, charset: CharsetSource = _no_charset) -> Json:
    """Decode a JSON text (RFC 8259) of at most ``MAX_VALUES`` values and ``MAX_DEPTH`` levels.

    The encoding is UTF-8, else UTF-16 if there is its byte order mark, else the charset that is named. A lone surrogate
    (``"\\ud800"``) is read as U+FFFD.

    Raises:
        EmptyBodyError: the body holds no value.
        BadBodyError: the body is no JSON (NaN, bad UTF-8 and numbers out of range included), or past a bound.
    """
    try:
        return decode_strict(body)
    except NotStrictJsonError:
        return decode_repaired(body, charset())


def decode_repaired(body: bytes, charset: str | None) -> Json:
    """Decode a body that strict decoding has refused; ``charset`` is the one that is named.

    Raises:
        EmptyBodyError, BadBodyError: as ``decode_json``.
    """
    repaired = repair_json(body, charset)
    if repaired is None:
        raise BadBodyError("the body is not valid JSON")
    return decode_strict(repaired)


def decode_strict(body: bytes) -> Json:
    """Decode a JSON text in UTF-8, without repairs.

    Raises:
        OddBodyError: it is no JSON.
        BadBodyError: it is past a bound.
    """
    size = len(body)
    # A value has a byte at least, and most bodies are smaller than they may hold values.
    if (
        size > MAX_VALUES
        and count_separators(body) > MAX_VALUES
        and count_separators(_without_strings(body)) > MAX_VALUES
    ):
        raise BadBodyError(f"the JSON holds more than {MAX_VALUES} values")
    decode = _decode
    if size > _EXPONENT_SEARCH_MIN and _EXPONENT in body.translate(_AS_EXPONENT):
        decode = _decode_with_exponents
    try:
        value = decode(body)
    except RecursionError as error:
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotStrictJsonError("the body is not valid JSON") from error
    # No text with fewer brackets than that can be too deep, so most bodies are never walked.
    if size > MAX_DEPTH and body.count(b"[") + body.count(b"{") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep")
    return value


def repair_json(body: bytes, charset: str | None) -> bytes | None:
    """The same JSON in UTF-8, without a byte order mark and without lone surrogates; None where it is that already.

    Raises:
        EmptyBodyError: there is no value in it.
        BadBodyError: it is not of the charset that is named.
    """
    codec = _codec_of_bom(body) or (codec_of(charset) if charset is not None else None) or "utf-8"
    repaired = body
    # JSON has no charset (RFC 8259 section 8.1), so a name that does not fit a body in UTF-8 is ignored. The zero
    # bytes of UTF-16 would be UTF-8 as well.
    if codec.startswith("utf-16") or not (codec == "utf-8" or _is_utf8(body)):
        repaired = _text(body, codec).encode()
    repaired = repaired.removeprefix(codecs.BOM_UTF8)
    if not repaired.strip(_WHITESPACE):
        raise EmptyBodyError("the body is empty")
    # A zero byte is nowhere in JSON: it can stand for a backslash that is escaped.
    if b"\\u" in repaired and b"\0" not in repaired:
        aligned = repaired.replace(rb"\\", b"\0\0")
        repaired = _LONE_SURROGATE.sub(rb"\\ufffd", aligned).replace(b"\0\0", rb"\\")
    return None if repaired == body else repaired


def _codec_of_bom(body: bytes) -> str | None:
    """The codec of the byte order mark, which precedes the named charset (WHATWG Encoding, section 6)."""
    if body.startswith(codecs.BOM_UTF8):
        return "utf-8"
    return "utf-16" if body.startswith(_UTF16_MARKS) else None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeError:
        return False
    return True


def _text(body: bytes, codec: str) -> str:
    try:
        return body.decode(codec)
    except UnicodeError as error:
        raise BadBodyError("the body is not text in its charset") from error


def estimate_values(body: bytes) -> int:
    """The number of values in a JSON text, within a factor of two."""
    return count_separators(_without_strings(body))


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode a body as text, without a byte order mark.

    The charset is that of the byte order mark, else the named one (of ``charsets.CODECS``), else UTF-8.

    Raises:
        BadBodyError: the bytes are invalid in the charset, or in UTF-8 if the named charset is unknown.
    """
    named = "utf-8" if charset is None else codec_of(charset)
    if named == "ascii":
        named = "utf-8"  # All of ASCII is UTF-8, and text declared as ASCII is often UTF-8.
    codec = _codec_of_bom(body) or named
    if codec is None and not _is_utf8(body):
        raise BadBodyError("the body is in a charset that is not known here")
    return _text(body, codec or "utf-8").removeprefix("\ufeff")


def _finite(text: str) -> float:
    """The value of a number with a point or an exponent. Raises ValueError if it is out of range, as msgspec does."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("out of range")
    return value


_decode = msgspec.json.Decoder().decode
_decode_with_exponents = msgspec.json.Decoder(float_hook=_finite).decode


def count_separators(body: bytes) -> int:
    """An upper bound of the values in a JSON text, counted without decoding (commas in strings count too)."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def _without_strings(body: bytes) -> bytes:
    """A JSON text less its strings: every second part between quotes that are not escaped."""
    return b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def deeper_than(value: Json, limit: int) -> bool:
    """Whether the lists and objects of a value are nested more than ``limit`` levels deep."""
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
