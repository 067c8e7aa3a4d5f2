"""The head of a response: from what the application said to bytes (RFC 9112 sections 4 and 6), without I/O.

Used by ``exchange.py`` once per response. An application's mistake must not become a client's confusion: what would
split a response or misstate its length is an error of the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..problem import phrase

STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode()) for status in range(200, 600)}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
# Of these the server says what is true of the connection, or must know what was said.
_OURS = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})
_names: dict[bytes, tuple[bytes, bool]] = {}
"""Field names seen before: the beginning of their line, and whether the server looks at them."""
_NAMES_MAX = 1024


class ApplicationError(RuntimeError):
    """The application broke a rule of ASGI or of HTTP."""


@dataclass(slots=True)
class Fields:
    """The application's fields as lines of a head, and what they say to the server."""

    lines: bytes
    """Each with its line end."""
    length: int | None = None
    """Content-Length; not among the lines."""
    close: bool = False
    dated: bool = False


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Check the fields of an ASGI message and make lines of them.

    Raises:
        ApplicationError: a field that is none, or more than one Content-Length.
    """
    lines = []
    fields = Fields(b"")
    for name, value in headers:
        known = _names.get(name) or _learn(name)
        if known[1]:
            _take(fields, known[0], value)
            if known[0] != b"date: ":
                continue
        lines.append(known[0] + value)
    if lines:
        lines.append(b"")
        joined = b"\r\n".join(lines)
        ends = len(lines) - 1
        if joined.count(b"\n") != ends or joined.count(b"\r") != ends or b"\0" in joined:
            raise ApplicationError("the application gave a field with a line end or a NUL in its value")
        fields.lines = joined
    return fields


def _learn(name: bytes) -> tuple[bytes, bool]:
    lower = bytes(name).lower()
    if _TOKEN.fullmatch(lower) is None:
        raise ApplicationError(f"the application gave a field whose name is none: {name!r}")
    known = (lower + b": ", lower in _OURS)
    if len(_names) < _NAMES_MAX:
        _names[bytes(name)] = known
    return known


def _take(fields: Fields, prefix: bytes, value: bytes) -> None:
    if prefix == b"content-length: ":
        if fields.length is not None or not value.isdigit():
            raise ApplicationError(f"the application gave a Content-Length that is none: {value!r}")
        fields.length = int(value)
    elif prefix == b"connection: ":
        fields.close = fields.close or b"close" in value.lower()
    elif prefix == b"date: ":
        fields.dated = True


def has_no_content(status: int) -> bool:
    """Whether a response of this status has no content, whatever its fields say (RFC 9110 section 6.4.1)."""
    return status == 204 or status == 304
