"""Bytes to values: JSON and text under bounds that keep the event loop's stall short.

Used for upstream answers and for request bodies. msgspec keeps the GIL while it decodes, so a thread would not help:
the bounds are what keeps 9 MB of JSON from holding the loop for a third of a second.
"""

from __future__ import annotations

import re

import msgspec

from ..model import Json

MAX_DEPTH = 200
MAX_VALUES = 200_000

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class BadBodyError(ValueError):
    """A body that is not what it should be. The text is one sentence without any of the body's content."""


def decode_json(body: bytes) -> Json:
    """The value of a JSON text (RFC 8259) of at most ``MAX_VALUES`` values and ``MAX_DEPTH`` levels.

    Raises:
        BadBodyError: it is no JSON (NaN, bad UTF-8 and numbers out of range included), or past a bound.
    """
    # A value has a byte at least, and most bodies are smaller than they may hold values.
    if (
        len(body) > MAX_VALUES
        and _values_at_most(body) > MAX_VALUES
        and _values_at_most(_STRING.sub(b'""', body)) > MAX_VALUES
    ):
        raise BadBodyError(f"the JSON holds more than {MAX_VALUES} values")
    try:
        value = msgspec.json.decode(body)
    except RecursionError as error:
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBodyError("the body is not valid JSON") from error
    # No text with fewer brackets than that can be too deep, so most bodies are never walked.
    if len(body) > MAX_DEPTH and body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise BadBodyError(f"the JSON is nested more than {MAX_DEPTH} deep")
    return value


def decode_text(body: bytes, charset: str | None) -> str:
    """The text of a body in its charset, UTF-8 where none is named.

    Raises:
        BadBodyError: the charset is unknown, or the bytes are not of it.
    """
    try:
        return body.decode(charset or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        raise BadBodyError("the body is not text in its charset") from error


def _values_at_most(body: bytes) -> int:
    """An upper bound of the values in a JSON text, counted without decoding (commas in strings count too)."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


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
