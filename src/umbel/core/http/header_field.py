"""Header fields, and their values between text and bytes (RFC 9110 section 5.5).

A server gives the bytes of a client's field as text of one character per byte (ISO-8859-1), as ASGI and WSGI
applications expect. ``text_of`` gives the text that the client meant, ``raw_value`` the bytes again.
"""

from __future__ import annotations

import re

from .syntax import CONTROL_CHARS, CONTROL_TEXT

Field = tuple[bytes, bytes, bytes]
"""A header field: its name as it stands, its name in lower case, and its value."""

ACCEPT_GZIP: Field = (b"accept-encoding", b"accept-encoding", b"gzip")
"""The one content coding that Umbel decodes."""

# C1 (0x80 to 0x9f) ends lines for some readers of text.
_CONTROL_OR_C1 = re.compile(rf"[{CONTROL_CHARS}\x80-\x9f]")


def text_of(raw: str) -> str:
    """The text of a value that has a character per byte: UTF-8 where the bytes are that, else ISO-8859-1."""
    if raw.isascii():
        return raw
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


def raw_value(value: str) -> bytes | None:
    """The bytes of a value that has a character per byte; of any other text its UTF-8.

    None where no field can hold it: it has a control character, or is no Unicode.
    """
    if CONTROL_TEXT.search(value) is not None:
        return None
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        pass
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


def fits_field(text: str) -> bool:
    """Whether a text, as UTF-8, can stand in a field: it has no control character but the tab, and is Unicode."""
    if text.isascii() and text.isprintable():
        return True
    if _CONTROL_OR_C1.search(text) is not None:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
