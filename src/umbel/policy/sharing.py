"""What calls may share: which of a request's fields make it another's twin, and which answers are for one alone.

Asked by ``upstream/coalesce.py``. Knows fields as they stand on the wire, nothing of requests and responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Field = tuple[bytes, bytes, bytes]
"""A header field: its name as it stands, in lower case, and its value."""

COALESCE = "umbel.coalesce"
"""The key of a call's own choice (a bool) in its request's extensions, in place of the layer's."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that ask and change nothing (RFC 9110 section 9.2.1; TRACE is not for gateways)."""

REQUEST_ID = b"x-request-id"
VIA = b"via"

# What says who asks, through whom and for how long: it differs between calls that ask the same.
_OWN = frozenset({REQUEST_ID, VIA, b"traceparent", b"tracestate"})
_CLIENTS = b"x-forwarded-"
# RFC 9111 section 5.2.2.7. What is in quotes may look like a directive: then an answer is one caller's in vain.
_PRIVATE = re.compile(rb"(?:^|[,\s])private\s*(?:[=,]|$)", re.IGNORECASE)


def split(fields: Iterable[Field], deadline_header: bytes | None) -> tuple[list[Field], list[Field]]:
    """The fields that say what is asked, and those that only say who asks."""
    asked: list[Field] = []
    own: list[Field] = []
    for field in fields:
        name = field[1]
        if name in _OWN or name.startswith(_CLIENTS) or name == deadline_header:
            own.append(field)
        else:
            asked.append(field)
    return asked, own


def last_hop(via: bytes) -> bytes:
    """The last member of a Via field: the gateway's own (RFC 9110 section 7.6.3)."""
    return via.rpartition(b",")[2].strip()


def for_one_alone(fields: Iterable[Field]) -> bool:
    """Whether an answer with these fields is meant for one caller: it sets a cookie, or says that it is private."""
    for _, name, value in fields:
        if name == b"set-cookie" or (name == b"cache-control" and _PRIVATE.search(value) is not None):
            return True
    return False
