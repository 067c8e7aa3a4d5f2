"""Security fields: the fields of ``[headers]`` that responses get, and those that they lose."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING

from ...core.http.header_field import raw_value
from ..request.request_fields import Field

if TYPE_CHECKING:
    from ...config.schema.browsers import ResponseHeaders

_HSTS = b"strict-transport-security"
_API = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer"}
_WEB = {
    **_API,
    _HSTS: b"max-age=31536000",
    b"content-security-policy": b"frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
}
PRESETS: Mapping[str, Mapping[bytes, bytes]] = {"api": _API, "web": _WEB, "off": {}}


class SecurityFields:
    """The compiled form of ``[headers]``."""

    def __init__(self, headers: ResponseHeaders) -> None:
        given = {name.encode(): raw_value(value) or b"" for name, value in headers.set_.items()}
        self.removed = frozenset(name.encode() for name in headers.remove)
        """The names of fields that no response has."""
        self.replaced = frozenset(given)
        """The names of fields that replace those of a response."""
        added = {name: value for name, value in PRESETS[headers.preset].items() if name not in self.removed} | given
        self._secure = tuple(added.items())
        # RFC 6797 section 7.2: never over plain HTTP.
        self._plain = tuple(field for field in self._secure if field[0] != _HSTS)

    def where_absent(self) -> SecurityFields:
        """The same fields, but none that replaces a field of the response."""
        copied = copy(self)
        copied.replaced = frozenset()
        return copied

    @property
    def names(self) -> frozenset[bytes]:
        """The names of all fields that are added or removed."""
        return self.removed | {name for name, _ in self._secure}

    def for_scheme(self, scheme: str) -> tuple[Field, ...]:
        """The fields of a response to a client that uses ``scheme``, ``http`` or ``https``."""
        return self._secure if scheme == "https" else self._plain
