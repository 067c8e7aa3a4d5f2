"""The head of a response: checks the application's fields, and encodes them for HTTP/1.1 (RFC 9112). No I/O.

Fields that would split the response or give two lengths raise ``ApplicationError``, and are never sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ...core.http.secret_fields import may_be_secret
from ...core.http.syntax import TOKEN
from ...core.inbound import PreparedFields, ResponseFields
from ...core.problem import phrase
from ...net.bounded_cache import BoundedCache

STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode()) for status in range(200, 600)}
NO_CONTENT = frozenset({204, 304})
"""Statuses of responses without content, whatever their fields say (RFC 9110 section 6.4.1)."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

NO_STREAM_FOR_TAKE = "the application took a connection although became_stream had returned False, or would have"
"""The error of ``take`` without a place for a stream."""

# The server writes these fields itself; those of the application are left out.
_OURS = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_BREAK = re.compile(rb"[\r\n\0]")
_BROKEN = "the application gave a header field whose value has a line end or a NUL"
# Fields whose values differ for each response, so caching them has no use.
_ONCE = {name: b"%b: " % name for name in (b"age", b"etag", b"last-modified", b"server-timing", b"x-request-id")}
# Fields that tell the server something, so they must be read in each response.
_MEANT = frozenset({b"content-length", b"date"})
_KNOWN_MAX, _KNOWN_SIZE = 1024, 128
"""Entries of a cache, and bytes of the longest key."""
# Checked names, by the name in lower case.
_names: BoundedCache[bytes, bytes] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
# Lines of checked fields that mean nothing to the server. A line depends on its field alone, so an entry never expires.
_known: BoundedCache[tuple[bytes, bytes], bytes] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda field: len(field[0]) + len(field[1])
)
_SECTIONS_MAX, _SECTION_SIZE, _SECTION_FIELDS = 256, 512, 4
# Whole field sections that hold such fields, and at most a Content-Length beside them.
_sections: BoundedCache[tuple[tuple[bytes, bytes], ...], Fields] = BoundedCache(_SECTIONS_MAX)


class ApplicationError(RuntimeError):
    """The application broke a rule of ASGI or HTTP. It is raised to the application, and nothing wrong is sent."""


class Fields(msgspec.Struct, frozen=True):
    """The application's fields as lines of an HTTP/1.1 head, and their meaning for the server."""

    lines: bytes
    """The lines, each with its line end."""
    length: int | None
    """Content-Length; None without one."""
    close: bool
    """Whether Connection has ``close``."""
    dated: bool
    """Whether there is a Date."""


class _Encoded(NamedTuple):
    """What ``PreparedFields.encoded`` holds."""

    lines: bytes
    """The lines, with ``%b`` in place of a value that each response has of its own."""
    ends: int
    """Their number."""
    length_at: int | None
    """The place of Content-Length among the values; None: it is no value of a response."""
    length: int | None
    """Content-Length, if it is constant."""
    close: bool
    dated: bool


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Check and encode the fields of a response.

    Raises:
        ApplicationError: a name or value is malformed, or there is more than one Content-Length.
    """
    if type(headers) is ResponseFields:
        return _read_prepared(headers.prepared, headers.values)
    fields = tuple(headers)
    try:
        section = _sections.get(fields) if len(fields) <= _SECTION_FIELDS else None
        if section is not None:
            return section
        lines: list[Any] = list(map(_known.get, fields))
    except TypeError:  # Some applications make lists instead of pairs, which cannot be keys.
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
                raise ApplicationError(f"the application gave a second or malformed Content-Length: {value!r}")
            length = int(value)
            lines[place] = b"content-length: %b\r\n" % value
            continue
        if name == b"connection":
            close = close or b"close" in value.lower()
        dated = dated or name == b"date"
        lines[place] = _line(name, value)
    whole = b"".join(lines)
    if unchecked:
        # The values of _ONCE are checked together: each line has one line end, so any further one is inside of a value.
        ends = len(lines) - lines.count(b"")
        if whole.count(b"\n") != ends or whole.count(b"\r") != ends or b"\0" in whole:
            raise ApplicationError(_BROKEN)
    read = Fields(whole, length, close, dated)
    # Cached only if all fields were known but a Content-Length, which is never in _known.
    if unknown == (length is not None) and len(fields) <= _SECTION_FIELDS and len(whole) <= _SECTION_SIZE:
        _sections.add(fields, read)
    return read


def _read_prepared(prepared: PreparedFields, values: tuple[bytes, ...]) -> Fields:
    """Do as ``read_fields`` for ``ResponseFields``."""
    encoded: _Encoded | None = prepared.encoded
    if encoded is None:
        encoded = prepared.encoded = _encode_prepared(prepared)
    lines, ends, length_at, length, close, dated = encoded
    whole = lines % values
    # Each line has one line end, so any further one is inside of a value.
    if whole.count(b"\n") != ends or whole.count(b"\r") != ends or b"\0" in whole:
        raise ApplicationError(_BROKEN)
    if length_at is not None:
        if not values[length_at].isdigit():
            raise ApplicationError(f"the application gave a malformed Content-Length: {values[length_at]!r}")
        length = int(values[length_at])
    return Fields(whole, length, close, dated)


def _encode_prepared(prepared: PreparedFields) -> _Encoded:
    """Encode the constant fields; raises as ``read_fields``."""
    constant = read_fields([(name, value) for name, value in prepared.fields if value is not None])
    varying = [name for name, value in prepared.fields if value is None]
    lines = []
    for name, value in prepared.fields:
        if value is not None:
            lines.append(read_fields([(name, value)]).lines.replace(b"%", b"%%"))
        elif name == b"content-length" or not (name in _OURS or name in _MEANT or _name(name) != name):
            lines.append(b"%b: %%b\r\n" % name)
        else:
            raise ApplicationError(f"the application lets a header field vary that must be constant: {name!r}")
    whole = b"".join(lines)
    if varying.count(b"content-length") + (constant.length is not None) > 1:
        raise ApplicationError("the application gave a second Content-Length")
    length_at = varying.index(b"content-length") if b"content-length" in varying else None
    return _Encoded(whole, whole.count(b"\n"), length_at, constant.length, constant.close, constant.dated)


def _name(raw_name: bytes) -> bytes:
    """The name in lower case, checked.

    Raises:
        ApplicationError: it is no token (RFC 9110 section 5.6.2).
    """
    name = raw_name.lower()
    if TOKEN.fullmatch(name) is None:
        raise ApplicationError(f"the application gave a header field with a malformed name: {raw_name!r}")
    _names.add(raw_name, name)
    return name


def _line(name: bytes, value: bytes) -> bytes:
    """The line of a field; empty for a field that the server writes itself."""
    if name in _OURS:
        return b""
    line = b"%b: %b\r\n" % (name, _sound(value))
    field = (name, value)
    if name not in _MEANT and name not in _ONCE and _known.takes(field) and not may_be_secret(name):
        _known.add(field, line)
    return line


def _sound(value: bytes) -> bytes:
    """``value``, if it has no line end and no NUL; else raise ``ApplicationError``."""
    if _BREAK.search(value) is not None:
        raise ApplicationError(_BROKEN)
    return value


def check_interim_status(status: int) -> None:
    """Check the status of an interim response.

    Raises:
        ApplicationError: the status is not 1xx, or is 101 (``switching_head``).
    """
    if not 100 <= status < 200 or status == 101:
        raise ApplicationError(
            f"the application gave the status {status!r} to an interim response; it must be 100 or 102 to 199"
        )


def interim_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of an interim response (RFC 9110 section 15.2).

    Raises:
        ApplicationError: the status is not 1xx, or is 101 (``switching_head``), or a field is malformed.
    """
    check_interim_status(status)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase(status).encode(), read_fields(fields).lines)


def switching_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of the response that switches a connection to another protocol (RFC 9110 section 15.2.2).

    Connection is added, and Upgrade with ``websocket`` if ``fields`` have none.

    Raises:
        ApplicationError: the status is not 101, or a field is malformed.
    """
    if status != 101:
        raise ApplicationError(f"an HTTP/1.1 connection must be taken with status 101, not {status!r}")
    lines = read_fields(fields).lines
    upgrade = b"" if b"\r\nupgrade: " in b"\r\n" + lines else b"upgrade: websocket\r\n"
    return b"HTTP/1.1 101 Switching Protocols\r\n%b%bconnection: upgrade\r\n\r\n" % (lines, upgrade)


def has_no_content(status: int) -> bool:
    """Whether a response with this status has no content, whatever its fields say."""
    return status in NO_CONTENT
