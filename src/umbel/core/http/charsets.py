"""Charsets that a message may name, and Python's codecs for them.

The list is closed, and a name from a peer is never given to Python's registry. The registry also has codecs that are no
charsets (``zlib``, ``unicode_escape``), and codecs that take quadratic time (``punycode``, ``idna``). All listed codecs
are written in C and take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_CHARSET = re.compile(r';[ \t]*+charset[ \t]*+=[ \t]*+["\']?([^\s;,"\']++)', re.IGNORECASE)


def _named() -> Mapping[str, str]:
    names = {name: name for name in ("utf-8", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u")}
    names |= {"utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "latin1": "latin-1", "iso-8859-1": "latin-1"}
    names |= {f"iso-8859-{part}": f"iso8859-{part}" for part in (*range(2, 12), *range(13, 17))}
    names |= {f"windows-{page}": f"cp{page}" for page in range(1250, 1259)}
    names |= {f"cp{page}": f"cp{page}" for page in range(1250, 1259)}
    east = ("gb18030", "gbk", "gb2312", "big5", "euc-jp", "euc-kr", "shift_jis")
    return names | {name: name.replace("-", "_") for name in east}


CODECS = _named()
"""Name of Python's codec by name of the charset in lower case: names of the IANA registry, and common short forms."""

# Other labels of these charsets, from the WHATWG Encoding standard.
_ALIASES = {f"iso8859-{part}": f"iso-8859-{part}" for part in range(1, 17)}
_ALIASES |= {"latin-1": "iso-8859-1", "l1": "iso-8859-1", "x-sjis": "shift_jis", "sjis": "shift_jis"}
_ALIASES |= {
    "unicode-1-1-utf-8": "utf-8",
    "utf8mb4": "utf-8",
    "x-gbk": "gbk",
    "x-euc-jp": "euc-jp",
    "shift-jis": "shift_jis",
}

ASCII_COMPATIBLE = frozenset(CODECS.values()) - {
    "utf-16",
    "utf-16le",
    "utf-16be",
    "gb18030",
    "gbk",
    "big5",
    "shift_jis",
}
"""The codecs in which each byte below 128 is the ASCII character, at any position."""


def codec_of(charset: str) -> str | None:
    """Name of Python's codec for a charset, in any case; None if the charset is not listed."""
    name = charset.lower()
    if name not in CODECS:
        name = name.replace("_", "-")
        name = _ALIASES.get(name, name)
    return CODECS.get(name)


def charset_of(content_type: str) -> str | None:
    """The ``charset`` parameter of a Content-Type (RFC 9110 section 8.3.2); None if there is none."""
    found = _CHARSET.search(content_type)
    return found[1] if found is not None else None
