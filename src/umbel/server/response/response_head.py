"""The head of a response: the fields of an application as bytes (RFC 9112 sections 4 and 6), without I/O.

A mistake of an application must not confuse a client: fields that would split a response, or misstate its length, are
an error of the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ...core.http.secret_fields import may_be_secret
from ...core.http.syntax import TOKEN
from ...core.problem import phrase
from ...net.bounded_cache import BoundedCache

STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode()) for status in range(200, 600)}
NO_CONTENT = frozenset({204, 304})
"""Responses without content, whatever their fields say (RFC 9110 section 6.4.1)."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Of the connection and its framing the server says what is true.
_OURS = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_BREAK = re.compile(rb"[\r\n\0]")
_BROKEN = "the application gave a field with a line end or a NUL in its value"
# Values that belong to one response: they never come twice.
_ONCE = {name: b"%b: " % name for name in (b"age", b"etag", b"last-modified", b"server-timing", b"x-request-id")}
_MEANT = frozenset({b"content-length", b"date"})
_KNOWN_MAX, _KNOWN_SIZE = 1024, 128
"""Names, and fields, that are kept, and the bytes of the longest."""
# Names that have been looked at, in lower case.
_names: BoundedCache[bytes, bytes] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
# Lines of fields that have been looked at and mean nothing to the server: the same ones go out again and again. What a
# line is depends on nothing but its field, so this is a memory, and never a decision.
_known: BoundedCache[tuple[bytes, bytes], bytes] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda field: len(field[0]) + len(field[1])
)
_SECTIONS_MAX, _SECTION_SIZE, _SECTION_FIELDS = 256, 512, 4
# Whole sections of such fields, with no other beside them than Content-Length; a memory of the same kind.
_sections: BoundedCache[tuple[tuple[bytes, bytes], ...], Fields] = BoundedCache(_SECTIONS_MAX)


class ApplicationError(RuntimeError):
    """The application broke a rule of ASGI or of HTTP."""


class Fields(msgspec.Struct, frozen=True):
    """The application's fields as lines of a head, and what they say to the server."""

    lines: bytes
    """Each with its line end."""
    length: int | None
    """Content-Length."""
    close: bool
    dated: bool


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Check the fields of an ASGI message and make lines of them.

    Raises:
        ApplicationError: a field that is none, or more than one Content-Length.
    """
    fields = tuple(headers)
    try:
        section = _sections.get(fields) if len(fields) <= _SECTION_FIELDS else None
        if section is not None:
            return section
        lines: list[Any] = list(map(_known.get, fields))
    except TypeError:  # Some make their pairs as lists.
        fields = tuple([(bytes(name), bytes(value)) for name, value in fields])
        lines = list(map(_known.get, fields))
    length: int | None = None
    close = dated = unchecked = False
    unknown = lines.count(None)
    for place, known in enumerate(lines):
        if known is not None:
            continue
        raw_name, value = fields[place]
        if raw_name in _ONCE:
            lines[place] = b"%b%b\r\n" % (_ONCE[raw_name], value)
            unchecked = True
            continue
        name = _names.get(raw_name) or _name(raw_name)
        if name == b"content-length":
            if length is not None or not value.isdigit():
                raise ApplicationError(f"the application gave a Content-Length that is none: {value!r}")
            length = int(value)
            lines[place] = b"content-length: %b\r\n" % value
            continue
        if name == b"connection":
            close = close or b"close" in value.lower()
        dated = dated or name == b"date"
        lines[place] = _line(name, value)
    whole = b"".join(lines)
    if unchecked:
        # Each line that is not empty has one line end, so one more is inside of a value.
        ends = len(lines) - lines.count(b"")
        if whole.count(b"\n") != ends or whole.count(b"\r") != ends or b"\0" in whole:
            raise ApplicationError(_BROKEN)
    read = Fields(whole, length, close, dated)
    # Nothing but a Content-Length was unknown, which is never among the lines that are known.
    if unknown == (length is not None) and len(fields) <= _SECTION_FIELDS and len(whole) <= _SECTION_SIZE:
        _sections.add(fields, read)
    return read


def _name(raw_name: bytes) -> bytes:
    name = raw_name.lower()
    if TOKEN.fullmatch(name) is None:
        raise ApplicationError(f"the application gave a field whose name is none: {raw_name!r}")
    _names.add(raw_name, name)
    return name


def _line(name: bytes, value: bytes) -> bytes:
    """The line of a field; none for those of which the server says what is true."""
    if name in _OURS:
        return b""
    line = b"%b: %b\r\n" % (name, _sound(value))
    field = (name, value)
    if name not in _MEANT and name not in _ONCE and _known.takes(field) and not may_be_secret(name):
        _known.add(field, line)
    return line


def _sound(value: bytes) -> bytes:
    if _BREAK.search(value) is not None:
        raise ApplicationError(_BROKEN)
    return value


def interim_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of an interim response (RFC 9110 section 15.2).

    Raises:
        ApplicationError: the status is none of them, or is 101, which ends with another protocol.
    """
    if not 100 <= status < 200 or status == 101:
        raise ApplicationError(f"the application gave an interim response the status {status!r}")
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase(status).encode(), read_fields(fields).lines)


def switching_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head with which a connection goes over to another protocol (RFC 9110 section 15.2.2).

    Raises:
        ApplicationError: the status is not 101, or a field is malformed.
    """
    if status != 101:
        raise ApplicationError(f"a connection of HTTP/1.1 is taken with the status 101, and not {status!r}")
    lines = read_fields(fields).lines
    upgrade = b"" if b"\r\nupgrade: " in b"\r\n" + lines else b"upgrade: websocket\r\n"
    return b"HTTP/1.1 101 Switching Protocols\r\n%b%bconnection: upgrade\r\n\r\n" % (lines, upgrade)


def has_no_content(status: int) -> bool:
    """Whether a response of this status has no content, whatever its fields say."""
    return status in NO_CONTENT
