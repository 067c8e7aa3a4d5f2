"""Check of a JSON text without decoding it, for a value that no expression or template reads.

Theory
------
**Problem.** Most values go into the answer as they came. To decode such a value and to encode it again costs time for
every object in it, and for freeing it. So its text is only checked, and the answer holds the bytes that came. But an
answer is always valid JSON, and a body beyond a bound fails its call. Therefore the check must not accept anything that
``decode.decode_strict`` refuses.

**What msgspec checks.** To decode a text as ``msgspec.Raw``, msgspec skips the value: it checks the whole grammar
(RFC 8259), with escapes, surrogate pairs and control characters, and creates no object. It does not check:

- *UTF-8* in strings. Outside of strings, grammar permits ASCII only. So the body is valid if it is UTF-8 as a whole.
- *The range of numbers.* ``decode_strict`` refuses a number that is infinite as a double, and an integer of more than
  4,300 digits. Both need a run of ``_LONG`` digits, or else an exponent of three digits or more: with fewer digits and
  with an exponent of two digits, a number is below 10 ** (``_LONG`` + 99).
- *The depth*, and *the number of values*: ``is_surely_shallow`` and ``count_separators`` tell that a text is within the
  bounds.

**In doubt, decode.** ``is_json`` is false also for valid texts: for one with such a number, or with a string that looks
like one. They are decoded. So a body is accepted exactly if ``decode_strict`` accepts it.

**How numbers are found.** ``_REDUCE`` writes each digit as 0 and each E as e; ``_DROPPED`` are the bytes that are
deleted. All bytes of ``_KEPT`` that stand side by side in the text do so in the reduced text, too. Deleting the bytes
between others may add a run or an exponent, but never removes one. An exponent ends before a comma, a closing bracket
or the end of the text, while most digits with an "e" in strings, as in a UUID, end before a quote.

**Cost.** Each step is one function that runs in C, in time linear in the body. The check takes time for each byte, and
the most for digits among letters, as in UUIDs and base64; decoding takes time for each value, and the most for the
members of objects. So only a text with many members is checked (``is_worth_a_check``); others may take longer to check
than to decode. ``make bench-large ARGS='--only check'`` prints the time of the check beside decoding and encoding.
"""

from __future__ import annotations

import re

import msgspec

from ..core.model import Json
from .decode import MAX_DEPTH, MAX_VALUES, count_separators, decode_strict, is_surely_shallow, is_utf8

CHECK_MIN = 256
"""The bytes up to which a text is not worth the check."""
_SAMPLE = 1024
_BYTES_PER_MEMBER_MAX = 24
_LONG = 200
"""The digits in a row that make a number doubtful."""
_KEPT = b'0123456789eE"[]{},'
_DROPPED = bytes(set(range(256)) - set(_KEPT))
_REDUCE = bytes.maketrans(b"123456789E", b"000000000e")
_DIGITS = b"0" * _LONG
_EXPONENT_START = b"0e000"
_EXPONENT = re.compile(rb"0e0000*+(?:[,\]}]|\Z)")

_skip = msgspec.json.Decoder(msgspec.Raw).decode


def is_worth_a_check(body: bytes) -> bool:
    """Whether the check takes less time than decoding, by the number of members in the first ``_SAMPLE`` bytes."""
    size = len(body)
    return size > CHECK_MIN and body.count(b'":', 0, _SAMPLE) * _BYTES_PER_MEMBER_MAX >= min(size, _SAMPLE)


def checked_or_decoded(body: bytes) -> Json:
    """The value of a JSON text in UTF-8: ``msgspec.Raw`` with the text if ``is_json``, else as decoded.

    Raises:
        NotStrictJsonError: the body is no JSON in UTF-8.
        BadBodyError: the body exceeds a bound.
    """
    return msgspec.Raw(body) if is_json(body) else decode_strict(body)


def is_json(body: bytes) -> bool:
    """Whether a body is surely a JSON text that ``decode_strict`` accepts. False: only decoding can tell."""
    if len(body) > MAX_VALUES and count_separators(body) > MAX_VALUES:
        return False
    try:
        _skip(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    if not (body.isascii() or is_utf8(body)):
        return False
    reduced = body.translate(_REDUCE, _DROPPED)
    if _DIGITS in reduced or (_EXPONENT_START in reduced and _EXPONENT.search(reduced)):
        return False
    return len(body) <= MAX_DEPTH or is_surely_shallow(body if b"\\" in body else reduced, MAX_DEPTH)
