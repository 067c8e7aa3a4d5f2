"""Syntax of HTTP messages: character classes, compiled patterns, lists of tokens.

Sources: RFC 9110 (sections 5.5 and 5.6), RFC 9112 (sections 2.2 and 3.2.1) and RFC 3986 (section 2.1).

A constant ``…_CHARS`` is the inside of a character class ``[…]`` of a regular expression, as text; ``bytes_pattern``
compiles a pattern that is composed of such constants. A constant ``…_TEXT`` is a compiled pattern for text; all other
patterns are for bytes. Each pattern takes linear time.
"""

from __future__ import annotations

import re

TOKEN_CHARS = "!#$%&'*+.^_`|~0-9A-Za-z-"
"""``tchar`` (RFC 9110 section 5.6.2). The hyphen is last, so no character may be added after it."""
FIELD_VISIBLE_CHARS = r"\x21-\x7e\x80-\xff"
"""``field-vchar`` (RFC 9110 section 5.5): the characters with which a field value begins and ends."""
FIELD_CHARS = r"\t\x20-\x7e\x80-\xff"
"""``field-vchar``, space and tab: the characters of field values, reason phrases and chunk extensions."""
CONTROL_CHARS = r"\x00-\x08\x0a-\x1f\x7f"
"""The control characters but the tab. No field value may hold one (RFC 9110 section 5.5)."""
TARGET_CHARS = r'!"$-~'
"""Characters of a request target that the gateway forwards: visible ASCII without ``#``, which begins a fragment.

RFC 3986 allows fewer. None of them ends the target in a request line (RFC 9112 section 3.2)."""
NOT_TARGET_CHARS = r"\x00-\x20#\x7f-\xff"
"""The complement of ``TARGET_CHARS``. A search for it is faster than for ``[^…]``."""


def bytes_pattern(pattern: str) -> re.Pattern[bytes]:
    """Compile a pattern for bytes. ``pattern`` is ASCII; other bytes are written as escapes."""
    return re.compile(pattern.encode("ascii"))


TOKEN = bytes_pattern(f"[{TOKEN_CHARS}]++")
"""``token`` (RFC 9110 section 5.6.2): a method or the name of a field, for example."""
TOKEN_TEXT = re.compile(TOKEN.pattern.decode("ascii"))
FIELD_VALUE = bytes_pattern(f"[{FIELD_CHARS}]*+")
"""A field value with the whitespace around it."""
CONTROL_TEXT = re.compile(f"[{CONTROL_CHARS}]")
"""Finds a control character in text."""
ORIGIN_FORM = bytes_pattern(f"/[{TARGET_CHARS}]*+")
"""A request target in origin form (RFC 9112 section 3.2.1), of the characters in ``TARGET_CHARS``."""
NOT_OF_TARGET = bytes_pattern(f"[{NOT_TARGET_CHARS}]")
"""Finds a byte that a request target, or a part of one, must not hold."""
NEVER_IN_HEAD = bytes_pattern(rf"[^{FIELD_CHARS}\r\n]|(?<!\r)\n|\r(?=[^\n])")
"""Finds a control character, a CR without LF or a LF without CR in a head (RFC 9112 section 2.2).

The head may be incomplete: a CR at its end is not found. The next search must begin at this CR."""
BAD_ESCAPE = bytes_pattern("%(?![0-9A-Fa-f]{2})")
"""Finds a percent sign that begins no valid escape (RFC 3986 section 2.1)."""


def list_members(value: bytes) -> set[bytes]:
    """The members of a list of tokens, in lower case, without empty members (RFC 9110 section 5.6.1)."""
    members = {member.strip(b" \t") for member in value.lower().split(b",")}
    members.discard(b"")
    return members
