"""The head of a response: its status line and its fields (RFC 9112 sections 4 and 5), and what they say together of the
connection and of the body (section 6).

It is strict: what two readers could take for two things is refused. llhttp accepts some of that, and calls back for
each field. It does no I/O, and its only state are caches of heads and lines that were read before.
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

# The quantifiers are possessive: nothing is tried twice, however long the line.
_STATUS = bytes_pattern(rf"(HTTP/1\.[01]) ([0-9]{{3}})(?: ([{FIELD_CHARS}]*+))?")
_FIELD = bytes_pattern(rf"\A([{TOKEN_CHARS}]++):([{FIELD_CHARS}]*+)")

_INTERPRETED = HOP_BY_HOP | {b"content-length", b"content-encoding"}

KNOWN_MAX, KNOWN_LINE_MAX = 1024, 128
"""Lines that are cached, and the bytes of the longest one."""

_LENGTH_DIGITS_MAX = 18
_KNOWN_MAX, _KNOWN_SIZE = 128, 512
"""Heads that are cached, and the bytes of the longest one."""


class StatusLine(NamedTuple):
    """Status line of a response."""

    version: bytes
    status: int
    reason: bytes


class InterpretedField(NamedTuple):
    """Field that the reader itself interprets: framing, connection, coding."""

    field: Field
    end_to_end: bool
    """Whether it is passed on."""


class Head(msgspec.Struct, frozen=True):
    """Head of a response. ``fields`` are the end-to-end fields in order."""

    status: int
    reason: bytes
    version: bytes
    fields: tuple[Field, ...]
    coded: bool
    """Whether there is a Content-Encoding."""
    keep_alive: bool
    """Whether the peer lets the connection serve again after this response."""
    length: int | None
    """Content-Length, if there is one."""
    chunked: bool
    lines: int
    """Lines of the head, the status line included."""
    kept: tuple[Field, ...]
    """``fields`` without Content-Length: what is true of a body that was read."""
    names: frozenset[bytes]
    """Of ``kept``, in lower case."""
    size: int
    """Bytes of the head, with its empty line."""
    whole_size: int | None
    """Bytes of head and body, if the length of a body is known and there is one (it may be empty)."""
    has_body: bool
    """Whether its status is a final one of a response with content, as far as its request lets it have any."""
    idle_hint: float | None = None
    """Seconds that the peer keeps an idle connection, as its Keep-Alive field says (RFC 2068 section 19.7.1.1)."""


# Caches of parsed lines: upstreams send nearly the same lines again and again. A line means the same in every head, so
# a hit never changes a result.
_status_lines: BoundedCache[bytes, StatusLine] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)
_fields: BoundedCache[bytes, Field | InterpretedField] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)

# Cache of whole heads, which are equal while the second of their Date lasts. As in the caches of lines, heads with
# fields that may be secret are not kept.
_heads: BoundedCache[bytes, Head] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
known_heads: Mapping[bytes, Head] = _heads.entries
"""The cached heads by their bytes; to be read only."""


def head_of(raw: bytes) -> Head:
    """Parse the head ``raw``, which ends before its empty line.

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
    persistent = version == b"HTTP/1.1"
    if connection:
        tokens = list_members(connection)
        if named := named_by(connection):
            fields = [field for field in fields if field[1] not in named]
        persistent = b"close" not in tokens and (persistent or b"keep-alive" in tokens)
    if codings and (codings != [b"chunked"] or lengths or version != b"HTTP/1.1"):
        raise MalformedMessageError("a Transfer-Encoding that is not one chunked alone in HTTP/1.1")
    if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS_MAX):
        raise MalformedMessageError("Content-Length is not one number")
    length = int(lengths[0]) if lengths else None
    kept = tuple(field for field in fields if field[1] != b"content-length")
    names = frozenset(field[1] for field in kept)
    size = len(raw) + 4
    has_body = 200 <= status <= 599 and status not in (204, 304)
    return Head(
        status, reason, version, tuple(fields), coded, persistent, length, bool(codings), count, kept, names, size,
        None if length is None or not has_body else size + length, has_body, idle_hint,
    )  # fmt: skip


def _timeout_of(value: bytes) -> float | None:
    """The ``timeout`` of a Keep-Alive field, in seconds."""
    for member in value.split(b","):
        name, _, number = member.partition(b"=")
        if name.strip().lower() == b"timeout" and (digits := number.strip()).isdigit() and len(digits) <= 6:
            return float(digits)
    return None


def check_part(raw: bytearray, since: int, begin: int) -> int:
    """Check a head that is not complete, so that a malformed one fails at once and not at a deadline.

    ``since`` is where the newest bytes begin, ``begin`` where the first line begins that was not checked. Return
    the new ``begin``.

    Raises:
        MalformedMessageError: a character that no head can hold, or a complete line that is no field or status line.
    """
    # A CR that ended the last piece is checked again, with what follows it.
    again = max(0, since - 1)
    if NEVER_IN_HEAD.search(raw, again) is not None:
        raise MalformedMessageError(
            "the response's head holds a forbidden character, or a line that CR LF does not end"
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
        MalformedMessageError: it is none of HTTP/1.0 or 1.1.
    """
    start = _status_lines.get(line)
    if start is None:
        match = _STATUS.fullmatch(line)
        if match is None:
            raise MalformedMessageError(
                "the response's status line is not of HTTP/1.0 or 1.1, or holds a forbidden character"
            )
        version, status, reason = match.groups(b"")
        start = StatusLine(version, int(status), reason)
        _status_lines.add(line, start)
    return start


def field_of(line: bytes) -> Field | InterpretedField:
    """Parse the field line ``line``, without its CR LF.

    Raises:
        MalformedMessageError: no valid name, a control character, a bare CR or LF, a folded value.
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
