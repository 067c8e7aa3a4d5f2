"""The charsets that the text of a message may name, and the codecs that decode them.

A closed list: Python's own registry also has codecs that are no charsets (``zlib``, ``unicode_escape``, ``undefined``),
and ones written in Python that take quadratic time (``punycode``, ``idna``). A name from outside never gets there. All
of those listed are written in C and take linear time.
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
"""Python's codec by a charset's name in lower case: the names of IANA's registry, and four that everybody writes."""

# Other labels of the same that the WHATWG Encoding standard lists and that servers send.
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
"""The codecs in which a byte below 128 is that ASCII character wherever it stands."""


def codec_of(charset: str) -> str | None:
    """The codec of a charset that a peer names; None if it is unknown."""
    name = charset.lower()
    if name not in CODECS:
        name = name.replace("_", "-")
        name = _ALIASES.get(name, name)
    return CODECS.get(name)


def charset_of(content_type: str) -> str | None:
    """The charset that a Content-Type names (RFC 9110 section 8.3.2); None if it names none."""
    found = _CHARSET.search(content_type)
    return found[1] if found is not None else None
