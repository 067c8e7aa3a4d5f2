"""The syntax of HTTP messages that several modules read: classes of characters, compiled patterns, and lists.

Sources: RFC 9110 (sections 5.5 and 5.6), RFC 9112 (sections 2.2 and 3.2.1) and RFC 3986 (section 2.1).

A name that ends with ``_CHARS`` is what stands between the brackets of a class of a regular expression, as text;
``bytes_pattern`` compiles for bytes what is composed of such classes. Patterns match bytes, those that end with
``_TEXT`` match text. No pattern has more than one way to match, so each takes linear time.
"""

from __future__ import annotations

import re

TOKEN_CHARS = "!#$%&'*+.^_`|~0-9A-Za-z-"
"""``tchar`` (RFC 9110 section 5.6.2). Ends with the hyphen, so nothing may be added behind it."""
FIELD_VISIBLE_CHARS = r"\x21-\x7e\x80-\xff"
"""``field-vchar`` (RFC 9110 section 5.5): what a field value of bytes begins and ends with."""
FIELD_CHARS = r"\t\x20-\x7e\x80-\xff"
"""``field-vchar``, space and tab: what a field value of bytes, a reason phrase and a chunk extension consist of."""
CONTROL_CHARS = r"\x00-\x08\x0a-\x1f\x7f"
"""The control characters without the tab. No field value may hold one, as bytes or as text (RFC 9110 section 5.5)."""
TARGET_CHARS = r'!"$-~'
"""What this gateway passes on in a request target: visible ASCII without ``#``, which would begin a fragment.

More than RFC 3986 allows. None of them ends the target in a request line (RFC 9112 section 3.2)."""
NOT_TARGET_CHARS = r"\x00-\x20#\x7f-\xff"
"""The other octets. Searching for these is faster than for ``[^...]`` of the others."""


def bytes_pattern(pattern: str) -> re.Pattern[bytes]:
    """Compile a pattern for bytes that is written as text. It is ASCII: other bytes are written as escapes."""
    return re.compile(pattern.encode("ascii"))


TOKEN = bytes_pattern(f"[{TOKEN_CHARS}]++")
"""``token``: a method, the name of a field, and most names within values (RFC 9110 section 5.6.2)."""
TOKEN_TEXT = re.compile(TOKEN.pattern.decode("ascii"))
FIELD_VALUE = bytes_pattern(f"[{FIELD_CHARS}]*+")
"""A field value with the blanks around it."""
CONTROL_TEXT = re.compile(f"[{CONTROL_CHARS}]")
"""To search text for a control character."""
ORIGIN_FORM = bytes_pattern(f"/[{TARGET_CHARS}]*+")
"""A path with its query (RFC 9112 section 3.2.1), of the characters in ``TARGET_CHARS``."""
NOT_OF_TARGET = bytes_pattern(f"[{NOT_TARGET_CHARS}]")
"""To search a target, or a part of one, for a byte that it may not hold."""
NEVER_IN_HEAD = bytes_pattern(rf"[^{FIELD_CHARS}\r\n]|(?<!\r)\n|\r(?=[^\n])")
"""To search a head that may be incomplete: a control character, or a CR or LF without the other (RFC 9112 section 2.2).

The search has to begin one byte before the newest ones, so that a CR at the end of the last bytes is seen."""
BAD_ESCAPE = bytes_pattern("%(?![0-9A-Fa-f]{2})")
"""To search a target or a form for a percent sign that begins no escape (RFC 3986 section 2.1)."""


def list_members(value: bytes) -> set[bytes]:
    """The members of a list of tokens in lower case; empty ones do not count (RFC 9110 section 5.6.1)."""
    members = {member.strip(b" \t") for member in value.lower().split(b",")}
    members.discard(b"")
    return members
