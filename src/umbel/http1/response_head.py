"""Parser of response heads (RFC 9112 sections 4 to 6): status line, fields, body framing and persistence.

The parser is strict: a head that two readers could interpret in two ways is an error. It does no I/O. Its only state is
a cache of parsed lines and one of parsed heads, which never change a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ..core.http.header_field import Field
from ..core.http.hop_by_hop import HOP_BY_HOP, is_hop_by_hop, named_by
from ..core.http.secret_fields import may_be_secret
from ..core.http.syntax import FIELD_CHARS, NEVER_IN_HEAD, TOKEN_CHARS, bytes_pattern, list_members
from ..net.bounded_cache import BoundedCache
from .errors import MalformedMessageError

# The quantifiers are possessive: there is no backtracking, so a match takes linear time.
_STATUS = bytes_pattern(rf"(HTTP/1\.[01]) ([0-9]{{3}})(?: ([{FIELD_CHARS}]*+))?")
_FIELD = bytes_pattern(rf"\A([{TOKEN_CHARS}]++):([{FIELD_CHARS}]*+)")

_INTERPRETED = HOP_BY_HOP | {b"content-length", b"content-encoding"}

KNOWN_MAX, KNOWN_LINE_MAX = 1024, 128
"""Maximum number of cached lines, and maximum bytes of a cached line."""

_LENGTH_DIGITS_MAX = 18
_KNOWN_MAX, _KNOWN_SIZE = 128, 512
"""Maximum number of cached heads, and maximum bytes of a cached head."""


class StatusLine(NamedTuple):
    """Status line of a response."""

    version: bytes
    status: int
    reason: bytes


class InterpretedField(NamedTuple):
    """Field that the parser itself interprets, because it concerns the framing, the connection or the coding."""

    field: Field
    end_to_end: bool
    """Whether the field is forwarded (not hop-by-hop)."""


class Head(msgspec.Struct, frozen=True):
    """Parsed head of a response."""

    status: int
    reason: bytes
    version: bytes
    """``HTTP/1.0`` or ``HTTP/1.1``."""
    fields: tuple[Field, ...]
    """The end-to-end fields, in order."""
    coded: bool
    """Whether the head has a Content-Encoding."""
    keep_alive: bool
    """Whether the peer keeps the connection open after this response (RFC 9112 section 9.3)."""
    length: int | None
    """The value of Content-Length; None if the head has none."""
    chunked: bool
    """Whether the body has the chunked transfer coding."""
    lines: int
    """Number of lines, including the status line."""
    kept: tuple[Field, ...]
    """``fields`` without Content-Length, which may not fit a decoded body."""
    names: frozenset[bytes]
    """The names of ``kept``, in lower case."""
    size: int
    """Bytes of the head, including its empty line."""
    whole_size: int | None
    """Bytes of head and body together; None if the head has no Content-Length, or its status allows no body."""
    has_body: bool
    """Whether ``status`` is a final status that allows a body. (A response to HEAD has none in any case.)"""
    idle_hint: float | None = None
    """Seconds that the peer keeps an idle connection open, from Keep-Alive (RFC 2068 section 19.7.1.1)."""
    upgrade: bytes | None = None
    """The value of Upgrade in lower case, if Connection names it too; else None."""


# Caches of parsed lines: upstreams repeat most of their lines. The meaning of a line does not depend on the head, so a
# cached line never changes a result. Lines of fields that may be secret are not kept.
_status_lines: BoundedCache[bytes, StatusLine] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)
_fields: BoundedCache[bytes, Field | InterpretedField] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)

# Cache of parsed heads: an upstream often repeats a head for as long as its Date stays the same, one second. Heads with
# a field that may be secret are not kept.
_heads: BoundedCache[bytes, Head] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
known_heads: Mapping[bytes, Head] = _heads.entries
"""The cached heads by their bytes; only to be read."""


def head_of(raw: bytes) -> Head:
    """Parse the head ``raw``, without the CR LF CR LF at its end.

    Raises:
        MalformedMessageError: a line is malformed, or the framing is ambiguous.
    """
    known = _heads.get(raw)
    if known is None:
        known = _read(raw)
        names = (line.partition(b":")[0].lower() for line in raw.split(b"\r\n"))
        if _heads.takes(raw) and not any(may_be_secret(name) for name in names):
            _heads.add(raw, known)
    return known


def _read(raw: bytes) -> Head:
    lines = raw.split(b"\r\n")
    count = len(lines)
    version, status, reason = status_line_of(lines[0])
    fields: list[Field] = []
    connection, coded = b"", False
    idle_hint: float | None = None
    upgrade: bytes | None = None
    codings: list[bytes] = []
    lengths: list[bytes] = []
    del lines[0]
    for line in lines:
        field = field_of(line)
        if not isinstance(field, InterpretedField):
            fields.append(field)
            continue
        field, end_to_end = field
        if end_to_end:
            fields.append(field)
        _, name, value = field
        if name == b"content-length":
            lengths.append(value)
        elif name == b"keep-alive":
            hint = _timeout_of(value)
            idle_hint = idle_hint if hint is None else hint
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"content-encoding":
            coded = True
        elif name == b"upgrade":
            upgrade = value.lower() if upgrade is None else upgrade + b"," + value.lower()
    persistent, switches = version == b"HTTP/1.1", False
    if connection:
        tokens = list_members(connection)
        switches = b"upgrade" in tokens
        if named := named_by(connection):
            fields = [field for field in fields if field[1] not in named]
        persistent = b"close" not in tokens and (persistent or b"keep-alive" in tokens)
    if codings and (codings != [b"chunked"] or lengths or version != b"HTTP/1.1"):
        raise MalformedMessageError(
            "the response has a Transfer-Encoding other than a single chunked, or beside Content-Length, or in HTTP/1.0"
        )
    if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS_MAX):
        raise MalformedMessageError("the response's Content-Length is not a single number")
    length = int(lengths[0]) if lengths else None
    kept = tuple(field for field in fields if field[1] != b"content-length")
    names = frozenset(field[1] for field in kept)
    size = len(raw) + 4
    has_body = 200 <= status <= 599 and status not in (204, 304)
    return Head(
        status, reason, version, tuple(fields), coded, persistent, length, bool(codings), count, kept, names, size,
        None if length is None or not has_body else size + length, has_body, idle_hint,
        upgrade if switches else None,
    )  # fmt: skip


def _timeout_of(value: bytes) -> float | None:
    """The ``timeout`` parameter of a Keep-Alive field, in seconds; None if there is none."""
    for member in value.split(b","):
        name, _, number = member.partition(b"=")
        if name.strip().lower() == b"timeout" and (digits := number.strip()).isdigit() and len(digits) <= 6:
            return float(digits)
    return None


def check_part(raw: bytearray, since: int, begin: int) -> int:
    """Check the beginning of a head, so that a malformed head fails at once and not at a deadline.

    Args:
        raw: the bytes of the head so far.
        since: the position of the newest bytes.
        begin: the position of the first line that is not checked yet; 0 is the status line.

    Returns:
        The new ``begin``.

    Raises:
        MalformedMessageError: a character that no head can hold, or a complete line that is malformed.
    """
    # A CR at the end of the previous piece is checked again, together with the byte after it.
    again = max(0, since - 1)
    if NEVER_IN_HEAD.search(raw, again) is not None:
        raise MalformedMessageError(
            "the response's head holds a forbidden character, or a line that does not end with CR LF"
        )
    while (end := raw.find(b"\r\n", max(begin, again))) >= 0:
        line = bytes(raw[begin:end])
        if begin:
            field_of(line)
        else:
            status_line_of(line)
        begin = end + 2
    return begin


def status_line_of(line: bytes) -> StatusLine:
    """Parse the status line ``line``, without its CR LF.

    Raises:
        MalformedMessageError: the line is not a status line of HTTP/1.0 or HTTP/1.1.
    """
    start = _status_lines.get(line)
    if start is None:
        match = _STATUS.fullmatch(line)
        if match is None:
            raise MalformedMessageError(
                "the response's status line is not one of HTTP/1.0 or HTTP/1.1, or holds a forbidden character"
            )
        version, status, reason = match.groups(b"")
        start = StatusLine(version, int(status), reason)
        _status_lines.add(line, start)
    return start


def field_of(line: bytes) -> Field | InterpretedField:
    """Parse the field line ``line``, without its CR LF.

    Returns:
        the field, its value without surrounding whitespace; an ``InterpretedField`` if it concerns framing, connection
        or content coding.

    Raises:
        MalformedMessageError: the name is invalid, the line holds a control character other than tab, or it is folded
            (RFC 9112 section 5.2).
    """
    field = _fields.get(line)
    if field is None:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise MalformedMessageError(
                "a header field of the response has no valid name, or holds a forbidden character"
            )
        name, value = match.groups()
        lower = name.lower()
        field = plain = (name, lower, value.strip(b" \t"))
        if lower in _INTERPRETED or is_hop_by_hop(lower):
            field = InterpretedField(plain, not is_hop_by_hop(lower))
        if _fields.takes(line) and not may_be_secret(lower):
            _fields.add(line, field)
    return field
