"""Header fields, and the conversion of their values between bytes and text (RFC 9110 section 5.5).

Some text here is *byte text*: one character per byte (ISO-8859-1), the form in which WSGI and Quart give field values.
``text_of`` decodes byte text to the text that the sender meant; ``raw_value`` encodes it to the bytes.
"""

from __future__ import annotations

import re

from .syntax import CONTROL_CHARS, CONTROL_TEXT

Field = tuple[bytes, bytes, bytes]
"""A header field: the name as it was sent, the name in lower case, the value."""

ACCEPT_GZIP: Field = (b"accept-encoding", b"accept-encoding", b"gzip")
"""Accept-Encoding of calls: gzip, which every server knows and whose decoding costs little memory."""

# Some programs take a C1 control character (0x80 to 0x9f) for the end of a line.
_CONTROL_OR_C1 = re.compile(rf"[{CONTROL_CHARS}\x80-\x9f]")


def text_of(raw: str) -> str:
    """Decode byte text: as UTF-8 if the bytes are valid UTF-8, else as ISO-8859-1."""
    if raw.isascii():
        return raw
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


def raw_value(value: str) -> bytes | None:
    """Encode byte text to its bytes, and any other text to UTF-8.

    None if no field can hold the text: it has a control character or a lone surrogate.
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
    """Whether a field can hold ``text`` as UTF-8: no control character but the tab, and no lone surrogate."""
    if text.isascii() and text.isprintable():
        return True
    if _CONTROL_OR_C1.search(text) is not None:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
