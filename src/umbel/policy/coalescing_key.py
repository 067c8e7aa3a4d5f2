"""What calls may share: which methods, and which responses are private.

It takes header fields as they stand on the wire, and knows nothing of requests and responses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..core.http.header_field import Field
from ..core.http.syntax import list_members

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that ask and change nothing (RFC 9110 section 9.2.1; TRACE is not for gateways)."""

REQUEST_ID = b"x-request-id"
VIA = b"via"

# RFC 9111 section 5.2.2.7. What is in quotes may look like a directive: then an answer is one caller's in vain.
_PRIVATE = re.compile(rb"(?:^|[,\s])private\s*(?:[=,]|$)", re.IGNORECASE)


def last_hop(via: bytes) -> bytes:
    """The last member of a Via field: the gateway's own (RFC 9110 section 7.6.3)."""
    return via.rpartition(b",")[2].strip()


def is_private(fields: Iterable[Field], gateways: Collection[bytes] = ()) -> bool:
    """Whether a response with these fields is meant for one client alone.

    It is if it sets a cookie, says ``private``, or varies by more than the coalescing key holds: by a field that the
    gateway wrote (``gateways``), or by ``*`` (RFC 9110 section 12.5.5).
    """
    for _, name, value in fields:
        if name == b"set-cookie" or (name == b"cache-control" and _PRIVATE.search(value) is not None):
            return True
        if name == b"vary":
            members = list_members(value)
            if b"*" in members or not members.isdisjoint(gateways):
                return True
    return False
