"""Redactor: replaces secrets in records and texts by ``[redacted]``.

Secrets are recognised by the name before them (``password=…``) and by their form (bearer tokens, JSON Web Tokens,
API keys of ``umbel auth new-key``, userinfo of URLs). In doubt, text is hidden.

Texts come from peers, so each pattern must take time linear in the text, for any text and any configured names. Each
pattern follows three rules:

- A repeat is possessive (``*+``, ``++``), or backtracks over no more characters than it gives back.
- A match of a name or token begins only at the beginning of a run of its characters, and a match consumes the whole
  run, whether it is a secret or not. So no run is searched twice.
- Names with ``*`` are compared piece by piece with ``str.find``, never with a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...net.bounded_cache import BoundedCache

REDACTED = "[redacted]"
API_KEY_PREFIX = "uk_"
"""The beginning of each API key that is made, by which scanners for leaked secrets find it."""

NAMES = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-forwarded-client-cert",
    "*api-key*",
    "*apikey*",
    "*token*",
    "*secret*",
    "*password*",
    "*passwd*",
    "x-*-signature",
)
"""Secret names: their values are hidden. ``*`` stands for any characters; ``_`` equals ``-``; case does not matter."""

TEXT_CHARS_MAX = 64 * 1024
"""Maximum characters of a text; the rest is cut off, so that one text blocks the event loop for less than 20 ms."""

# Maximum number of names in one text that contain a piece of a secret name but are not secret. Further names with such
# a piece count as secret.
_PASSED_MAX = 500
_KNOWN_NAMES_MAX = 4096
_KNOWN_NAME_CHARS_MAX = 128
# A quote, also with the backslashes of JSON or of a repr within a text.
_QUOTE = r"""\\*+["']"""
# A text without one of these characters holds no secret that the patterns below recognise.
_TELLING = re.compile(r"""[\s=@:"']|eyJ|uk_""")
_USERINFO = re.compile(r"""(://)[^\s/?#"'<>]*@""")
_AUTHORITY_END = re.compile(r"""[\s/?#"'<>]""")
_BEARER = re.compile(r"""\b(bearer\s++)[^\s"',;\\]++""", re.IGNORECASE)
# Without a dot the match is no token; it is consumed all the same, since no token begins within it.
_JWT = re.compile(r"\beyJ[\w-]{4,}+((?:\.[\w-]++)*+)")
# An API key ends in 43 characters of base64url (32 random bytes), or with fewer where the text is cut.
_API_KEY = re.compile(rf"{API_KEY_PREFIX}(?:[A-Za-z0-9_-]{{43,}}+|[A-Za-z0-9_-]{{22,}}+\Z)")
_HEADER_LINE = re.compile(
    r"((?:authorization|cookie|forwarded[-_]client[-_]cert)\s*+[:=]\s*+)(?![\\\s\"'b]*[\"'])"
    # A quote belongs to the line only after "=": any other quote ends the text in which the line is quoted.
    r"(?:[^\r\n\"'\\]++|(?<==)\\*+[\"'][^\r\n\"'\\]*+\\*+[\"'])++",
    re.IGNORECASE,
)
# The separator between a name (quoted or not) and its value, in a pair or a mapping.
_SEPARATED = rf"(?:{_QUOTE}\s*+,\s*+(?=[bB]?{_QUOTE})|(?:{_QUOTE})?+\s*+(?:=>|[:=])\s*+)"
# A value extends to its closing quote, or without a quote to the end of the word.
# A quoted value may contain quotes with more backslashes.
_VALUE = re.compile(
    rf"(?<!\\)[bB]?(?P<quote>{_QUOTE})(?:[^\\\"']++|\\++(?![\"'])|(?!(?P=quote)){_QUOTE})*+"
    r"|(?!\[redacted)[^\s&;,\"'<>)\]}\\]++"
    # After an authentication scheme the value is the next word.
    r"(?:(?:(?<=(?i:bearer))|(?<=(?i:basic)))\s++[^\s\"',;\\]++)*+"
    # A word that ends with one of these characters goes on with a quoted text, such as token=a="...".
    rf"(?:(?<=[=:(\[{{])[bB]?(?P<inner>{_QUOTE})(?:[^\\\"']++|\\++(?![\"'])|(?!(?P=inner)){_QUOTE})*+)?+"
)
_NOT_OF_A_NAME = re.compile(r"[^\w.*-]")


class Redactor:
    """Hides secrets; the module's docstring states its rules.

    Args:
        names: secret names in addition to ``NAMES``, in the same form.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        patterns = {_folded(name) for name in (*NAMES, *names) if name}
        # A dotted name is secret if its part after any of its dots is a secret name.
        self._ends = tuple(f".{name}" for name in patterns if "*" not in name)
        self._globs = [_Glob(name) for name in patterns if "*" in name]
        # The longest literal piece of each name: a text without any of these pieces contains no secret name.
        pieces = {max(re.split(r"[*-]", name), key=len) for name in patterns}
        self._pieces = tuple(piece for piece in pieces if not any(other in piece for other in pieces - {piece}))
        self._encoded_pieces = tuple(piece.encode() for piece in ("bearer", "eyj", *self._pieces))
        self._candidate = re.compile(
            _candidate(self._pieces, [name for name in patterns if _NOT_OF_A_NAME.search(name)])
        )
        self._known: BoundedCache[str, bool] = BoundedCache(_KNOWN_NAMES_MAX, _KNOWN_NAME_CHARS_MAX)

    def is_secret(self, name: str) -> bool:
        """Whether ``name``, or its part after any of its dots, is a secret name. Case does not matter."""
        known = self._known.get(name)
        if known is None:
            dotted = f".{_folded(name)}"
            known = dotted.endswith(self._ends) or any(glob.matches(dotted) for glob in self._globs)
            self._known.add(name, known)
        return known

    def text(self, text: str) -> str:
        """Hide userinfo of URLs, values of secret names, bearer tokens, JSON Web Tokens and API keys in ``text``.

        A text of more than ``TEXT_CHARS_MAX`` characters is ``cut`` to that length first. Returns the same object if
        the text was neither cut nor changed.
        """
        text = cut(text, TEXT_CHARS_MAX)
        if _TELLING.search(text) is None:
            return text
        lower = _folded(text)
        if "@" in lower and "://" in lower:
            text = _USERINFO.sub(rf"\g<1>{REDACTED}@", text)
        if any(piece in lower for piece in self._pieces):
            if "authorization" in lower or "cookie" in lower or "forwarded-client-cert" in lower:
                text = _HEADER_LINE.sub(rf"\g<1>{REDACTED}", text)
            text = self._without_named(text)
        if "bearer" in lower:
            text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
        if API_KEY_PREFIX in text:
            text = _API_KEY.sub(REDACTED, text)
        return _JWT.sub(_without_token, text) if "eyj" in lower else text

    def suspects(self, encoded: bytes) -> bool:
        """Whether an encoded record may hold a secret. False is certain, True is not."""
        if API_KEY_PREFIX.encode() in encoded:
            return True
        lower = encoded.lower() if encoded.isascii() else _folded(encoded.decode()).encode()
        if b"@" in lower and b"://" in lower:
            return True
        return any(piece in lower for piece in self._encoded_pieces)

    def _without_named(self, text: str) -> str:
        """Hide the values that follow a secret name and a separator."""
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
    """Secret name with ``*``, compared in linear time with ``"." + name``, where ``name`` is in lower case."""

    def __init__(self, pattern: str) -> None:
        # The pattern may begin after any dot of the name. Taking each piece at its leftmost position is sufficient,
        # because that leaves the most room for the pieces after it.
        *self._pieces, self._end = (pattern if pattern[0] == "*" else f".{pattern}").split("*")
        self._start = 1 if pattern[0] == "*" else 0  # A leading star does not match the dot that was put in front.

    def matches(self, dotted: str) -> bool:
        at = self._start
        for piece in self._pieces:
            at = dotted.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        return len(dotted) - at >= len(self._end) and dotted.endswith(self._end)


def cut(text: str, chars: int) -> str:
    """Cut a text to its first ``chars`` characters, before redaction; return a text that is short enough unchanged.

    All secrets but userinfo are recognised by the characters before them, so a cut does not prevent their recognition.
    Of an API key that is cut, at most 21 random characters remain; without the other 22 they are useless.
    Userinfo is recognised by the ``@`` after it. So if the cut falls into the authority of a URL, ``[redacted]``
    replaces what is left of the authority.
    """
    if len(text) <= chars:
        return text
    text = text[:chars]
    authority = text.rfind("://") + 3
    if authority > 2 and _AUTHORITY_END.search(text, authority) is None:
        return text[:authority] + REDACTED
    # If the cut falls into "://" itself, nothing of the authority is left.
    return text


def _without_token(match: re.Match[str]) -> str:
    return REDACTED if match[1] else match[0]


def _candidate(pieces: Sequence[str], odd: Sequence[str]) -> str:
    """The pattern for a possible secret name and the separator after it, in a folded text.

    Group 1 is the name: a whole run of name characters, still to be checked. If group 1 is None, one of the ``odd``
    names has matched, which is certainly secret.
    """
    anywhere = "|".join(re.escape(piece) for piece in sorted(pieces))
    # Atomic, so that a run with many pieces and no separator after it is searched once.
    names = [rf"(?<![\w.-])(?=[\w.-])((?>[\w.-]*?(?:{anywhere}))[\w.-]*+)"]
    for name in odd:
        # A name with other characters, such as a space, is recognised only by its last piece that has one.
        parts = name.split("*")
        last = max(place for place, part in enumerate(parts) if _NOT_OF_A_NAME.search(part))
        if last < len(parts) - 1:
            names.append(re.escape(parts[last]) + r"[\w.-]*+")
        elif piece := parts[last].rstrip("\\ \t\r\n"):  # A separator may begin with these characters.
            names.append(re.escape(piece))
    return rf"(?:{'|'.join(names)}){_SEPARATED}"


def _folded(text: str) -> str:
    """The text in lower case, with ``-`` for ``_``. The length does not change."""
    if not text.isascii():
        # Letters that a case-insensitive pattern takes for i or s. The lower case of the first has two characters.
        text = text.replace("\u0130", "i").replace("\u0131", "i").replace("\u017f", "s")
    return text.lower().replace("_", "-")
