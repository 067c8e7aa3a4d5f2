"""The head of a response: from what the application said to bytes (RFC 9112 sections 4 and 6), without I/O.

Used by ``exchange.py`` once per response. An application's mistake must not become a client's confusion: what would
split a response or misstate its length is an error of the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..problem import phrase

STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode()) for status in range(200, 600)}
NO_CONTENT = frozenset({204, 304})
"""Responses without content, whatever their fields say (RFC 9110 section 6.4.1)."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
# Of the connection and its framing the server says what is true.
_OURS = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_known: dict[tuple[tuple[bytes, bytes], ...], Fields] = {}
_KNOWN_MAX, _KNOWN_SIZE = 256, 1024
"""Field sections that are remembered, and the bytes of the largest."""


class ApplicationError(RuntimeError):
    """The application broke a rule of ASGI or of HTTP."""


class Fields(NamedTuple):
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
    # An application says much the same again and again.
    try:
        key = tuple(headers)
        known = _known.get(key)
    except TypeError:  # Some make their pairs as lists.
        key = tuple((bytes(name), bytes(value)) for name, value in headers)
        known = _known.get(key)
    if known is None:
        known = _read_fields(key)
        if len(known.lines) <= _KNOWN_SIZE:
            if len(_known) >= _KNOWN_MAX:
                _known.clear()
            _known[key] = known
    return known


def _read_fields(headers: tuple[tuple[bytes, bytes], ...]) -> Fields:
    lines: list[bytes] = []
    length: int | None = None
    close = dated = False
    for raw_name, value in headers:
        name = raw_name.lower()
        if _TOKEN.fullmatch(name) is None:
            raise ApplicationError(f"the application gave a field whose name is none: {raw_name!r}")
        if name == b"content-length":
            if length is not None or not value.isdigit():
                raise ApplicationError(f"the application gave a Content-Length that is none: {value!r}")
            length = int(value)
        elif name == b"connection":
            close = close or b"close" in value.lower()
        if name not in _OURS:
            lines.append(b"%b: %b\r\n" % (name, value))
            dated = dated or name == b"date"
    joined = b"".join(lines)
    if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines) or b"\0" in joined:
        raise ApplicationError("the application gave a field with a line end or a NUL in its value")
    return Fields(joined, length, close, dated)


def has_no_content(status: int) -> bool:
    """Whether a response of this status has no content, whatever its fields say."""
    return status in NO_CONTENT
