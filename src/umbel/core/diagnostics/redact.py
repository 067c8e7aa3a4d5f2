"""What must never be written: values of secret names, and secrets that stand in the middle of a text.

Pure. It would rather hide too much than too little.

Texts come from peers, so that each pattern here takes time linear in the text, whatever the text is and whatever names
an operator configures. Three rules keep it so; a pattern that is added has to keep them too:

- A repeat is possessive (``*+``, ``++``), or its backtracking costs no more than the characters that it gives back.
- What begins at many places (a name, a JSON Web Token) begins only where the run of its characters begins, and a run
  that was looked at once is consumed, whether it held a secret or not.
- Names with ``*`` are compared with ``str.find``, piece by piece from the left, and never by a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...net.bounded_cache import BoundedCache

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

TEXT_CHARS_MAX = 64 * 1024
"""A longer text is cut before it is looked through, so that one text holds the loop for less than 20 ms."""

# After so many names in one text that hold a piece of a secret name and are none, the others are taken for secret.
_PASSED_MAX = 500
_KNOWN_NAMES_MAX = 4096
_KNOWN_NAME_CHARS_MAX = 128
# A quote as it stands in a text, or as it stands in JSON or in a repr that is itself inside of a text.
_QUOTE = r"""\\*+["']"""
# Without one of these nothing below can match.
_TELLING = re.compile(r"""[\s=@:"']|eyJ""")
_USERINFO = re.compile(r"""(://)[^\s/?#"'<>]*@""")
_AUTHORITY_END = re.compile(r"""[\s/?#"'<>]""")
_BEARER = re.compile(r"""\b(bearer\s++)[^\s"',;\\]++""", re.IGNORECASE)
# Without a dot it is none, but it is consumed, since no token begins within it.
_JWT = re.compile(r"\beyJ[\w-]{4,}+((?:\.[\w-]++)*+)")
_HEADER_LINE = re.compile(
    r"((?:authorization|cookie)\s*+[:=]\s*+)(?![\\\s\"'b]*[\"'])"
    # A quoted piece is a part of the line only behind a "=": any other quote is the end of a text that holds the line.
    r"(?:[^\r\n\"'\\]++|(?<==)\\*+[\"'][^\r\n\"'\\]*+\\*+[\"'])++",
    re.IGNORECASE,
)
# What stands between a name and its value: in a pair or a mapping, after a quoted name or a plain one.
_SEPARATED = rf"(?:{_QUOTE}\s*+,\s*+(?=[bB]?{_QUOTE})|(?:{_QUOTE})?+\s*+(?:=>|[:=])\s*+)"
# What a value reaches to: its closing quote, or else the end of the word. (A header line: the end of the line.)
# Within quotes there may be quotes with more backslashes before them.
_VALUE = re.compile(
    rf"(?<!\\)[bB]?(?P<quote>{_QUOTE})(?:[^\\\"']++|\\++(?![\"'])|(?!(?P=quote)){_QUOTE})*+"
    r"|(?!\[redacted)[^\s&;,\"'<>)\]}\\]++"
    # A scheme is no value yet: what it names stands behind it.
    r"(?:(?:(?<=(?i:bearer))|(?<=(?i:basic)))\s++[^\s\"',;\\]++)*+"
    # A word that ends so has not ended, such as token=a="..." or token=['...'].
    rf"(?:(?<=[=:(\[{{])[bB]?(?P<inner>{_QUOTE})(?:[^\\\"']++|\\++(?![\"'])|(?!(?P=inner)){_QUOTE})*+)?+"
)
_NOT_OF_A_NAME = re.compile(r"[^\w.*-]")


class Redactor:
    """Knows secrets by the name they stand under and by their look. ``names`` are hidden beside ``NAMES``."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        patterns = {_folded(name) for name in (*NAMES, *names) if name}
        # A dotted name is secret if what follows any of its dots is.
        self._ends = tuple(f".{name}" for name in patterns if "*" not in name)
        self._globs = [_Glob(name) for name in patterns if "*" in name]
        # The longest literal piece of each name: a text without any of them needs no closer look.
        pieces = {max(re.split(r"[*-]", name), key=len) for name in patterns}
        self._pieces = tuple(piece for piece in pieces if not any(other in piece for other in pieces - {piece}))
        self._encoded_pieces = tuple(piece.encode() for piece in ("bearer", "eyj", *self._pieces))
        self._candidate = re.compile(
            _candidate(self._pieces, [name for name in patterns if _NOT_OF_A_NAME.search(name)])
        )
        self._known: BoundedCache[str, bool] = BoundedCache(_KNOWN_NAMES_MAX, _KNOWN_NAME_CHARS_MAX)

    def is_secret(self, name: str) -> bool:
        """Whether the value under this name is to be hidden; of a dotted name what follows any dot counts as well."""
        known = self._known.get(name)
        if known is None:
            dotted = f".{_folded(name)}"
            known = dotted.endswith(self._ends) or any(glob.matches(dotted) for glob in self._globs)
            self._known.add(name, known)
        return known

    def text(self, text: str) -> str:
        """The text with what is secret in it hidden: userinfo of URLs, values of secret names, bearer tokens, JWTs.

        The very same text where there is nothing to hide.
        """
        text = cut(text, TEXT_CHARS_MAX)
        if _TELLING.search(text) is None:
            return text
        lower = _folded(text)
        if "@" in lower and "://" in lower:
            text = _USERINFO.sub(rf"\g<1>{REDACTED}@", text)
        if any(piece in lower for piece in self._pieces):
            if "authorization" in lower or "cookie" in lower:
                text = _HEADER_LINE.sub(rf"\g<1>{REDACTED}", text)
            text = self._without_named(text)
        if "bearer" in lower:
            text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
        return _JWT.sub(_without_token, text) if "eyj" in lower else text

    def suspects(self, encoded: bytes) -> bool:
        """Whether an encoded record may hold a secret, by name or by look: never wrongly False."""
        lower = encoded.lower() if encoded.isascii() else _folded(encoded.decode()).encode()
        if b"@" in lower and b"://" in lower:
            return True
        return any(piece in lower for piece in self._encoded_pieces)

    def _without_named(self, text: str) -> str:
        """The text without the values that stand after a secret name and a separator."""
        folded = _folded(text)
        search, value_at = self._candidate.search, _VALUE.match
        parts: list[str] = []
        done = at = passed = 0
        while (found := search(folded, at)) is not None:
            name, at = found[1], found.end()
            if name is not None and passed < _PASSED_MAX and not self.is_secret(name):
                passed += 1
                continue
            value = value_at(text, at)
            if value is not None:
                parts += (text[done:at], value["quote"] or "", REDACTED)
                done = at = value.end()
        if not parts:
            return text
        parts.append(text[done:])
        return "".join(parts)


class _Glob:
    """A name with ``*``, compared in linear time with names in lower case that have a dot put in front."""

    def __init__(self, pattern: str) -> None:
        # Whatever stands before a dot is passed over, as by a star. The leftmost place of each piece leaves most room.
        *self._pieces, self._end = (pattern if pattern[0] == "*" else f".{pattern}").split("*")
        self._start = 1 if pattern[0] == "*" else 0  # a star does not take the dot in front

    def matches(self, dotted: str) -> bool:
        at = self._start
        for piece in self._pieces:
            at = dotted.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        return len(dotted) - at >= len(self._end) and dotted.endswith(self._end)


def cut(text: str, chars: int) -> str:
    """At most ``chars`` of a text's beginning, made before the text is redacted.

    Everything that is hidden is known by what stands before it, but userinfo is known by the ``@`` behind it: an
    authority that the cut leaves unfinished is hidden whole.
    """
    if len(text) <= chars:
        return text
    text = text[:chars]
    authority = text.rfind("://") + 3
    if authority > 2 and _AUTHORITY_END.search(text, authority) is None:
        return text[:authority] + REDACTED
    # The cut may lie within the "://" itself; then nothing of the authority is there.
    return text


def _without_token(match: re.Match[str]) -> str:
    return REDACTED if match[1] else match[0]


def _candidate(pieces: Sequence[str], odd: Sequence[str]) -> str:
    """The pattern of what may be a secret name, and of the separator behind it, in a folded text.

    Group 1 is the name, a whole run of its characters; where it is None the name is an odd one, and surely secret.
    """
    anywhere = "|".join(re.escape(piece) for piece in sorted(pieces))
    # Atomic, so that a run with many pieces and no separator behind it is gone through once.
    names = [rf"(?<![\w.-])(?=[\w.-])((?>[\w.-]*?(?:{anywhere}))[\w.-]*+)"]
    for name in odd:
        # A name with other characters, such as a blank, is known by its last piece that has one, and by no more.
        parts = name.split("*")
        last = max(place for place, part in enumerate(parts) if _NOT_OF_A_NAME.search(part))
        if last < len(parts) - 1:
            names.append(re.escape(parts[last]) + r"[\w.-]*+")
        elif piece := parts[last].rstrip("\\ \t\r\n"):  # what a separator may begin with is left to it
            names.append(re.escape(piece))
    return rf"(?:{'|'.join(names)}){_SEPARATED}"


def _folded(text: str) -> str:
    """The text without cases, ``_`` as ``-``; as long as before."""
    if not text.isascii():
        # What a pattern that ignores cases takes for an i or an s; the first has a lower case of two characters.
        text = text.replace("\u0130", "i").replace("\u0131", "i").replace("\u017f", "s")
    return text.lower().replace("_", "-")
