"""Head errors: why a request head is refused. Also the target forms that the fast parser does not accept.

The fast parser (``request_head.py``) matches one pattern. A head that does not match is examined here, for the reason.
Only a head with an unusual target (absolute form, ``*``, or a query that is not ASCII) is accepted here. Every other
head raises ``HeadError``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from ...core.http.syntax import FIELD_VALUE, ORIGIN_FORM, TARGET_CHARS, TOKEN, bytes_pattern
from ..limits.server_limits import Limits
from ..response.error_response import ErrorResponse

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_ABSOLUTE = bytes_pattern(f"(?i:https?)://([^/?#]*)([/?][{TARGET_CHARS}]*)?")
_FRAMED = re.compile(rb"\r\n(?i:content-length|transfer-encoding)[ \t]*:")


_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_GLIMPSE_MAX = 200
"""Bytes of a refused method or path that go into the record."""


NO_PATH = "The target must be a path, with each # and each byte that is not visible ASCII percent-encoded."


class HeadError(Exception):
    """The request must not be served because of its head. It carries the error response."""

    def __init__(
        self,
        error_response: ErrorResponse,
        *,
        sound: bool = False,
        malformed: bool = False,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(error_response.detail)
        self.error_response = error_response
        self.sound = sound
        """Whether the end of the request is known and its client wants to keep the connection, so it may stay open."""
        self.malformed = malformed
        """Whether the request is malformed by RFC 9113 section 8.1.1: its stream ends with PROTOCOL_ERROR."""
        self.fields = fields
        """The request's fields, if they are known; see ``fields_of_refused``."""


def read_unusual_target(raw: bytes, limits: Limits) -> tuple[bytes, bytes | None]:
    """Accept a whole head, ``raw``, in which only the target is unusual.

    Returns:
        the target in origin form, or ``*``; and the authority of a target in absolute form, else None.

    Raises:
        HeadError: the head is refused; it carries the reason.
    """
    line, _, rest = raw.partition(b"\r\n")
    method, target = _request_line(line, limits)
    if len(raw) > limits.max_head:
        raise HeadError(ErrorResponse(431, f"The head is over {limits.max_head} bytes."))
    fields = rest[:-2].split(b"\r\n")[:-1]
    if len(fields) > limits.max_fields:
        raise HeadError(ErrorResponse(431, f"The head has over {limits.max_fields} fields."))
    for field in fields:
        _check_field(field, limits)
    stays = line.endswith(b"1") and not any(_says_close(field) for field in fields) and _FRAMED.search(raw) is None
    return _target(method, target, stays=stays)


def method_path_version(raw: bytes) -> tuple[str, str, str]:
    """Method, path without the query, and HTTP version of a refused head, for the record. Empty if they cannot be read.

    Method and path are cut after ``_GLIMPSE_MAX`` bytes.
    """
    parts = raw.lstrip(b"\r\n").partition(b"\r\n")[0].split(b" ")
    if len(parts) < 2 or TOKEN.fullmatch(parts[0]) is None:
        return "", "", ""
    # Without the query, which may hold secrets.
    path = parts[1].partition(b"?")[0][:_GLIMPSE_MAX].decode("ascii", "backslashreplace")
    version = parts[2][5:].decode() if len(parts) == 3 and _VERSION.fullmatch(parts[2]) is not None else ""
    return parts[0][:_GLIMPSE_MAX].decode(), path, version


def fields_of_refused(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a refused head, names in lower case: of an incomplete one, those of its complete lines.

    Empty if the request line is not that of HTTP/1.1 or 1.0, or if the line of a field is malformed.
    """
    line, _, rest = raw.lstrip(b"\r\n").partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or TOKEN.fullmatch(parts[0]) is None or parts[0] == b"PRI":
        return []
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return []
    fields: list[tuple[bytes, bytes]] = []
    for each in filter(None, rest.split(b"\r\n")[:-1]):
        name, colon, value = each.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
            return []
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def _request_line(line: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """Method and target of a request line; raises as ``read_unusual_target``."""
    parts = line.split(b" ")
    if len(parts) == 3 and len(parts[1]) > limits.max_target:
        raise HeadError(ErrorResponse(414, f"The target is over {limits.max_target} bytes."))
    if len(parts) != 3 or not parts[1] or TOKEN.fullmatch(parts[0]) is None or parts[0] == b"PRI":
        raise HeadError(
            ErrorResponse(400, "The request line is not a method, a target and HTTP/1.1, with one space between them.")
        )
    version = _VERSION.fullmatch(parts[2])
    if version is None:
        raise HeadError(ErrorResponse(400, "The request line does not end with an HTTP version."))
    if version.groups() not in ((b"1", b"0"), (b"1", b"1")):
        raise HeadError(ErrorResponse(505, "The HTTP version in the request line must be 1.1 or 1.0."))
    if any(byte <= 0x20 or byte == 0x7F for byte in parts[1]):
        raise HeadError(ErrorResponse(400, "The target has a control character."))
    return parts[0], parts[1]


def _check_field(field: bytes, limits: Limits) -> None:
    """Check one field line; raises as ``read_unusual_target``."""
    name, colon, value = field.partition(b":")
    if field[:1] in (b" ", b"\t"):
        reason = "A header field continues on a second line, which is not allowed."
    elif not colon or TOKEN.fullmatch(name) is None:
        reason = "The name of a header field is malformed, or a space precedes its colon."
    elif b"_" in name and limits.underscore_headers == "reject":
        reason = "The name of a header field has an underscore."
    elif FIELD_VALUE.fullmatch(value) is None:
        reason = "The value of a header field has a control character, or a line does not end with CR LF."
    else:
        return
    raise HeadError(ErrorResponse(400, reason))


def with_query_in_ascii(target: bytes) -> bytes:
    """The target with the non-ASCII bytes of its query percent-encoded (WHATWG URL, section 1.3).

    curl and others send such bytes unencoded. The path is not changed: a target with such bytes in its path must be
    refused, because two servers may decode a path differently, and access rules in front of the gateway depend on it.
    """
    path, mark, query = target.partition(b"?")
    return path + mark + _BEYOND_ASCII.sub(lambda found: quote(found[0]).encode("ascii"), query)


def _target(method: bytes, target: bytes, *, stays: bool) -> tuple[bytes, bytes | None]:
    """The target in origin form, and the authority of an absolute target; raises as ``read_unusual_target``.

    ``stays``: after a target that is refused, the connection may stay open.
    """
    if method == b"CONNECT":
        raise HeadError(ErrorResponse(501, "The server does not support CONNECT."))
    target = target if target.isascii() else with_query_in_ascii(target)
    if (target == b"*" and method == b"OPTIONS") or ORIGIN_FORM.fullmatch(target) is not None:
        return target, None
    if b"://" in target.partition(b"?")[0] and target[:1].isalpha():
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise HeadError(ErrorResponse(400, "The target is not a valid http or https URI."))
        path = absolute[2] or b"/"
        return (path if path.startswith(b"/") else b"/" + path), absolute[1]
    # Only the path is malformed; the end of the request is known.
    raise HeadError(ErrorResponse(400, NO_PATH), sound=stays)


def _says_close(field: bytes) -> bool:
    name, _, value = field.partition(b":")
    return name.lower() == b"connection" and b"close" in value.lower()
