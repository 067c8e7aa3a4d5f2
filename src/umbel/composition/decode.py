"""Decoding of bodies as JSON or text, under bounds that limit how long the event loop is blocked.

Three deviations that browsers accept are repaired: a byte order mark, a known charset other than UTF-8, and a lone
surrogate. A body is searched for them only after strict decoding has refused it. docs/upstream.md lists the bodies that
are still refused, with the reasons.

msgspec holds the GIL while it decodes, so a thread does not help. Therefore bounds are checked before it decodes: the
number of values, at some 0.2 µs each, and numbers with an exponent, which cost most per byte. Any body of 1 MB takes
less than 100 ms, and any body of 64 KiB less than 20 ms. Each function takes time linear in the body.
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
"""The Accept field of a call by its ``decode``, for a call whose headers do not set it."""

MAX_DEPTH = 200
"""The most levels of lists and objects in a JSON text."""
MAX_VALUES = 200_000
"""The most values in a JSON text that is decoded in one piece."""

# msgspec takes up to 12 µs for a number whose exponent is near the end of a double's range, 50 times as long as
# float(). A body of more than this many bytes is searched for exponents, and decoded with float() if it has any.
_EXPONENT_SEARCH_MIN = 4096
_EXPONENT = b"0e"
_AS_EXPONENT = bytes.maketrans(b"123456789.E", b"0000000000e")


# The escape of one half of a surrogate pair without the other half beside it. It is applied to a text in which each
# backslash begins an escape, so the pattern need not count backslashes.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_NO_SIGN = bytes(set(range(256)) - set(b'[]{}"'))
"""All bytes but brackets and quotes."""
_PAIRING_PASSES = 8
_UTF8_PIECE = 16 * 1024
_WHITESPACE = b" \t\r\n"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

CharsetSource = Callable[[], str | None]
"""Returns the charset of a body's Content-Type; called only for a body that strict decoding refuses."""


class BadBodyError(ValueError):
    """A body cannot be decoded, or exceeds a bound. The message is one sentence, without content of the body."""


class EmptyBodyError(BadBodyError):
    """A body without a value: it holds at most whitespace and a byte order mark."""


def _no_charset() -> None:
    """The charset of a body whose Content-Type names none."""


class NotStrictJsonError(BadBodyError):
    """A body that strict decoding refuses; ``decode_repaired`` may accept it."""


def decode_json(body: bytes, charset: CharsetSource = _no_charset) -> Json:
    """Decode a JSON text (RFC 8259) of at most ``MAX_VALUES`` values and ``MAX_DEPTH`` levels.

    The encoding is UTF-8; else UTF-16, if the body has its byte order mark; else the charset that ``charset`` returns.
    A lone surrogate (``"\\ud800"``) is read as U+FFFD.

    Raises:
        EmptyBodyError: the body holds no value.
        BadBodyError: the body is no JSON (NaN, bad UTF-8 and numbers out of range included), or exceeds a bound.
    """
    try:
        return decode_strict(body)
    except NotStrictJsonError:
        return decode_repaired(body, charset())


def decode_repaired(body: bytes, charset: str | None) -> Json:
    """Repair a JSON text that strict decoding has refused, and decode it.

    Args:
        charset: the charset of the Content-Type; None: it names none.

    Raises:
        EmptyBodyError: the body holds no value.
        BadBodyError: the body cannot be repaired, or exceeds a bound.
    """
    repaired = repair_json(body, charset)
    if repaired is None:
        raise BadBodyError("the body is not valid JSON")
    return decode_strict(repaired)


def decode_strict(body: bytes) -> Json:
    """Decode a JSON text in UTF-8, without repairs.

    Raises:
        NotStrictJsonError: the body is no JSON in UTF-8.
        BadBodyError: the body exceeds a bound.
    """
    size = len(body)
    # A value takes at least one byte, so a smaller body cannot hold too many. Strings are removed only if needed.
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
    # The walk costs more than decoding, and most texts need none.
    if size > MAX_DEPTH and not is_surely_shallow(body, MAX_DEPTH) and deeper_than(value, MAX_DEPTH):
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep")
    return value


def repair_json(body: bytes, charset: str | None) -> bytes | None:
    """Convert a JSON text to UTF-8 without a byte order mark and without lone surrogates.

    Returns:
        The repaired text; None: there is nothing to repair.

    Raises:
        EmptyBodyError: the body holds no value.
        BadBodyError: the bytes are invalid in their charset.
    """
    codec = _codec_of_bom(body) or (codec_of(charset) if charset is not None else None) or "utf-8"
    repaired = body
    # JSON is always UTF-8 (RFC 8259 section 8.1), so ``charset`` is ignored if the body is valid UTF-8. This test
    # cannot be made for UTF-16: its zero bytes are valid UTF-8.
    if codec.startswith("utf-16") or not (codec == "utf-8" or is_utf8(body)):
        repaired = _text(body, codec).encode()
    repaired = repaired.removeprefix(codecs.BOM_UTF8)
    if not repaired.strip(_WHITESPACE):
        raise EmptyBodyError("the body is empty")
    # JSON has no zero byte, so two zero bytes can stand for an escaped backslash during the search.
    if b"\\u" in repaired and b"\0" not in repaired:
        aligned = repaired.replace(rb"\\", b"\0\0")
        repaired = _LONE_SURROGATE.sub(rb"\\ufffd", aligned).replace(b"\0\0", rb"\\")
    return None if repaired == body else repaired


def _codec_of_bom(body: bytes) -> str | None:
    """The codec of the byte order mark, which has precedence over the named charset (WHATWG Encoding, section 6)."""
    if body.startswith(codecs.BOM_UTF8):
        return "utf-8"
    return "utf-16" if body.startswith(_UTF16_MARKS) else None


def is_utf8(body: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    view, size, at = memoryview(body), len(body), 0
    try:
        while at < size:
            # In pieces, because memory for one long text would be taken from the system anew each time. A piece may end
            # within a character: the next one begins with that character.
            at += codecs.utf_8_decode(view[at : at + _UTF8_PIECE], "strict", at + _UTF8_PIECE >= size)[1]
    except UnicodeError:
        return False
    return True


def _text(body: bytes, codec: str) -> str:
    try:
        return body.decode(codec)
    except UnicodeError as error:
        raise BadBodyError("the body is not text in its charset") from error


def estimate_values(body: bytes) -> int:
    """Estimate the number of values in a JSON text, within a factor of two."""
    return count_separators(_without_strings(body))


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode a body as text, and remove its byte order mark.

    The charset is that of the byte order mark; else ``charset``, if Umbel knows it (``charsets.CODECS``); else UTF-8.

    Raises:
        BadBodyError: the bytes are invalid in the charset, or in UTF-8 if the named charset is unknown.
    """
    named = "utf-8" if charset is None else codec_of(charset)
    if named == "ascii":
        named = "utf-8"  # All of ASCII is UTF-8, and text declared as ASCII is often UTF-8.
    codec = _codec_of_bom(body) or named
    if codec is None and not is_utf8(body):
        raise BadBodyError("the body is in an unknown charset")
    return _text(body, codec or "utf-8").removeprefix("\ufeff")


def _finite(text: str) -> float:
    """The value of a number with a point or an exponent. Raises ValueError if the number is out of range."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("out of range")
    return value


_decode = msgspec.json.Decoder().decode
_decode_with_exponents = msgspec.json.Decoder(float_hook=_finite).decode


def count_separators(body: bytes) -> int:
    """An upper bound of the number of values in a JSON text. Commas and brackets in strings count too."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def _without_strings(body: bytes) -> bytes:
    """A JSON text without its strings: they are every second part between unescaped quotes."""
    return b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def is_surely_shallow(body: bytes, limit: int) -> bool:
    """Whether the text of a JSON value shows that it is nested at most ``limit`` levels deep. False: it may be deeper.

    Args:
        body: valid JSON.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return True
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    signs = body.translate(None, _NO_SIGN)
    # Quotes of strings without brackets are adjacent now, so the first bracket within a string follows an odd number
    # of quotes. If there is no such bracket, all quotes can go at once.
    signs = signs.translate(None, b'"') if 2 * signs.count(b'""') == signs.count(b'"') else signs.replace(b'"' * 8, b"")
    # Between a bracket of a list or an object and a bracket within a string stands an odd number of quotes; between two
    # brackets of one sort, an even number. Quotes are taken out in pairs only, so this remains true. So two adjacent
    # brackets are of one sort, and a bracket within a string hides no level. A pass takes out at most two levels: "[]",
    # and "{}" that held nothing else. Each level that is left has an opening bracket.
    for passes in range(_PAIRING_PASSES + 1):
        if signs.count(b"[") + signs.count(b"{") + 2 * passes <= limit:
            return True
        signs = signs.replace(b'""', b"").replace(b"[]", b"").replace(b"{}", b"")
    return False


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
