"""Rules of coalescing: methods whose calls may share a response, and responses that belong to one client.

Names of header fields are given in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..core.http.header_field import Field
from ..core.http.syntax import list_members

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The safe methods (RFC 9110 section 9.2.1), without TRACE, which the gateway does not forward."""

REQUEST_ID = b"x-request-id"
VIA = b"via"

# RFC 9111 section 5.2.2.7. A quoted string with this word matches as well; then a response is not shared needlessly.
_PRIVATE = re.compile(rb"(?:^|[,\s])private\s*(?:[=,]|$)", re.IGNORECASE)


def last_hop(via: bytes) -> bytes:
    """The last member of the field Via, which the gateway itself has added (RFC 9110 section 7.6.3)."""
    return via.rpartition(b",")[2].strip()


def is_private(fields: Iterable[Field], gateways: Collection[bytes] = ()) -> bool:
    """Whether a response with these fields belongs to one client.

    That is the case with Set-Cookie, with ``Cache-Control: private``, and with a Vary that is ``*`` or names a request
    field that the coalescing key leaves out (RFC 9110 section 12.5.5).

    Args:
        gateways: names of the request fields that the coalescing key leaves out.
    """
    for _, name, value in fields:
        if name == b"set-cookie" or (name == b"cache-control" and _PRIVATE.search(value) is not None):
            return True
        if name == b"vary":
            members = list_members(value)
            if b"*" in members or not members.isdisjoint(gateways):
                return True
    return False
