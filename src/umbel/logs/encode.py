"""A record's way to bytes: one JSON object on one line, whatever it holds.

Used by the recorder. Pure but for the names of this process; it never raises for what a record holds.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

import msgspec

from .lines import Line

RECORD_BYTES_MAX = 256 * 1024
"""A longer line is replaced by its beginning with ``"truncated": true``, so that one record cannot fill a queue."""

# A character takes six bytes at most (an escaped control), so these stay well below the bound together.
_TEXT_CHARS_SHORTENED = 1024
_FIELDS_SHORTENED = 20
_FIELD_CHARS_SHORTENED = 256
# JSON escapes the C0 controls. DEL, the C1 controls and the two separators may stand raw in JSON, but terminals obey
# some of them and many readers (Python's splitlines among them) end a line at others.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")

_encoder = msgspec.json.Encoder(enc_hook=repr)


class Encoder:
    """Encodes records, each with the names of this service, host and process."""

    def __init__(self, service: str) -> None:
        names = {"service.name": service, "host.name": socket.gethostname(), "process.pid": os.getpid()}
        self._tail = b"," + msgspec.json.encode(names)[1:] + b"\n"
        self._tail_truncated = b',"truncated":true' + self._tail

    def encode(self, line: Line) -> bytes:
        """The line with its line end, at most ``RECORD_BYTES_MAX`` long."""
        try:
            text = _one_line(_encoder.encode(line))
        except Exception:  # noqa: BLE001 - a lone surrogate, a list that holds itself, a __repr__ that raises
            text = b""
        if text and len(text) + len(self._tail) <= RECORD_BYTES_MAX:
            return text[:-1] + self._tail
        return _one_line(_encoder.encode(_shortened(line)))[:-1] + self._tail_truncated


def printable(value: object) -> str:
    """``str(value)``, or its type's name where its ``__str__`` raises; lone surrogates are escaped."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything, and a record must not
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _shortened(line: Line) -> dict[str, object]:
    """The numbers and the beginnings of the texts of a line that cannot be written as it is."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(line)}
    members: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(line).items():
        if isinstance(value, Mapping):
            fields = list(value.items())[:_FIELDS_SHORTENED]
            members[names[name]] = {printable(key)[:_FIELD_CHARS_SHORTENED]: _shortened_field(v) for key, v in fields}
        elif isinstance(value, str):
            members[names[name]] = printable(value)[:_TEXT_CHARS_SHORTENED]
        elif value is not None and not isinstance(value, tuple):
            members[names[name]] = value
    return members


def _shortened_field(value: object) -> object:
    return value if isinstance(value, bool | float | None) else printable(value)[:_FIELD_CHARS_SHORTENED]


def _one_line(text: bytes) -> bytes:
    if text.isascii() and b"\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode()).encode()
