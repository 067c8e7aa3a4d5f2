"""What must never be written: values of secret names, and secrets that stand in the middle of a text.

Used by ``plain.py`` and ``encode.py`` before a record is queued. Pure. It would rather hide too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REDACTED = "[redacted]"

NAMES = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "*api-key*",
    "*apikey*",
    "*token*",
    "*secret*",
    "*password*",
    "*passwd*",
)
"""Names whose values are hidden, wherever a record has them; ``*`` is anything, ``_`` and ``-`` are the same."""

TEXT_CHARS_MAX = 256 * 1024
"""A longer text is cut before it is looked through; a record is not longer than that anyway."""

_KNOWN_NAMES_MAX = 4096
# A quote as it stands in a text, or as it stands in JSON or in a repr that is itself inside of a text.
_QUOTE = r"""\\*["']"""
# Without one of these nothing below can match.
_TELLING = re.compile(r"""[\s=@:"']|eyJ""")
_USERINFO = re.compile(r"""(://)[^\s/?#"'<>]*@""")
_BEARER = re.compile(r"""\b(bearer\s+)[^\s"',;\\]+""", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{4,}(?:\.[\w-]+)+")
# What a value reaches to: its closing quote, or else the end of the word. (A header line: the end of the line.)
# Within quotes there may be quotes with more backslashes before them.
_QUOTED = rf"""b?(?P<quote>{_QUOTE})(?:[^\\"']|\\+(?![\\"'])|(?!(?P=quote)){_QUOTE})*"""
_SEPARATED = rf"(?:{_QUOTE}\s*,\s*(?=b?{_QUOTE})|(?:{_QUOTE})?\s*(?:=>|[:=])\s*)"
_HEADER_LINE = re.compile(r"((?:authorization|cookie)\s*[:=]\s*)(?![\\\s\"'b]*[\"'])[^\r\n\"'\\]+", re.IGNORECASE)


class Redactor:
    """Knows secrets by the name they stand under and by their look. ``names`` are hidden beside ``NAMES``."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        patterns = [_normal(name) for name in (*NAMES, *names)]
        self._secret = re.compile("|".join(_pattern(name, r".*") for name in patterns), re.DOTALL)
        words = "|".join(_pattern(name, r"[\w.-]*").replace(r"\-", "[-_]") for name in patterns)
        self._named = re.compile(
            rf"(?<![\w.-])(?P<name>(?:[\w-]+\.)*(?:{words}){_SEPARATED})(?:{_QUOTED}|(?!\[redacted)[^\s&;,\"'<>)\]}}\\]+)",
            re.IGNORECASE | re.DOTALL,
        )
        # The longest literal piece of each name: a text without any of them needs no closer look.
        pieces = {max(re.split(r"[*-]", name), key=len) for name in patterns}
        self._pieces = tuple(piece for piece in pieces if not any(other in piece for other in pieces - {piece}))
        self._encoded_pieces = tuple(piece.encode() for piece in ("bearer", "eyj", *self._pieces))
        self._known: dict[str, bool] = {}

    def is_secret(self, name: str) -> bool:
        """Whether the value under this name is to be hidden; of a dotted name the last part counts as well."""
        known = self._known.get(name)
        if known is None:
            normal = _normal(name)
            known = any(self._secret.fullmatch(part) for part in (normal, normal.rpartition(".")[2]))
            if len(self._known) < _KNOWN_NAMES_MAX:
                self._known[name] = known
        return known

    def text(self, text: str) -> str:
        """The text with what is secret in it hidden: userinfo of URLs, values of secret names, bearer tokens, JWTs.

        The very same text where there is nothing to hide.
        """
        if len(text) > TEXT_CHARS_MAX:
            text = text[:TEXT_CHARS_MAX]
        if _TELLING.search(text) is None:
            return text
        lower = text.lower()
        if "@" in lower and "://" in lower:
            text = _USERINFO.sub(rf"\g<1>{REDACTED}@", text)
        if any(piece in lower for piece in self._pieces):
            text = _HEADER_LINE.sub(rf"\g<1>{REDACTED}", text)
            text = self._named.sub(rf"\g<name>\g<quote>{REDACTED}", text)
        if "bearer" in lower:
            text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
        return _JWT.sub(REDACTED, text) if "eyj" in lower else text

    def suspects(self, encoded: bytes) -> bool:
        """Whether an encoded record may hold a secret, by name or by look: never wrongly False."""
        lower = encoded.lower()
        if b"@" in lower and b"://" in lower:
            return True
        return any(piece in lower for piece in self._encoded_pieces)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _pattern(name: str, anything: str) -> str:
    return anything.join(re.escape(piece) for piece in name.split("*"))
