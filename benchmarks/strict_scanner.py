"""A strict scanner of JSON in plain Python: whether decoding would accept a body, without decoding it.

``make bench-large`` measures it. The gateway does not use it (docs/decisions/0050 says why).

The text is reduced, each step by one function that runs in C. Strings become ``s``: they are every second part between
quotes. Numbers and literals become ``n``. Then lists and objects without lists and objects in them become ``n``, level
by level, until one value is left. What decoding might repair or refuse for a reason that needs the value (an escape, an
exponent, an integer of 19 digits or more) is left to decoding.
"""

from __future__ import annotations

import re

MAX_DEPTH = 200
MAX_VALUES = 200_000

_CONTROLS = bytes(range(0x20))
_SPACE = b" \t\r\n"
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]{0,17}+)(?:\.[0-9]++)?+")
_FLAT = re.compile(rb"\{(?:m(?:,m)*+)?+\}|\[(?:[sn](?:,[sn])*+)?+\]")
_LITERALS = (b"true", b"false", b"null")


def accepts(body: bytes) -> bool:
    """Whether a body is JSON within the bounds. False also for what only decoding can tell; linear in the body."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return False
    if b"\\" in body:
        return False
    parts = body.split(b'"')
    strings = b"".join(parts[1::2])
    if len(parts) % 2 == 0 or len(strings.translate(None, _CONTROLS)) != len(strings):
        return False
    text = b'"'.join(parts[::2])
    # The letters that stand for values must not stand in the text; in "true", "false" and "null" they are replaced.
    if b"#" in text:
        return False
    for literal in _LITERALS:
        text = text.replace(literal, b"#")
    if b"n" in text or b"s" in text or b"m" in text:
        return False
    text = _NUMBER.sub(b"n", text).translate(_AS_VALUES, _SPACE)
    if text.count(b",") + text.count(b"[") + text.count(b"{") >= MAX_VALUES:
        return False
    for _ in range(MAX_DEPTH + 1):
        if text in (b"n", b"s"):
            return True
        text, count = _FLAT.subn(b"n", text.replace(b"s:s", b"m").replace(b"s:n", b"m"))
        if not count:
            return False
    return False


_AS_VALUES = bytes.maketrans(b'"#', b"sn")
