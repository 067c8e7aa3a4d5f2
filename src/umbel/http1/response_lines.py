"""The lines of a response's head: status line and fields, each looked at strictly, once (RFC 9112 sections 4 and 5).

It is our own code instead of llhttp's, which accepts what we refuse, and calls back for each field. What fields mean
together is decided in ``head.py``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..core.http.hop_by_hop import HOP_BY_HOP, is_hop_by_hop
from ..core.http.secret_fields import may_be_secret
from ..core.httpx_messages import Field
from ..net.bounded_cache import BoundedCache
from ..upstream.errors import Malformed

# The quantifiers are possessive: nothing is tried twice, however long the line.
_STATUS = re.compile(rb"(HTTP/1\.[01]) ([0-9]{3})(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_FIELD = re.compile(rb"\A([!#$%&'*+.^_`|~0-9A-Za-z-]++):([\t\x20-\x7e\x80-\xff]*+)")

_TELLING = HOP_BY_HOP | {b"content-length", b"content-encoding"}

KNOWN_MAX, KNOWN_LINE_MAX = 1024, 128
"""Lines that are kept, and the bytes of the longest. Longer ones are not worth it: they hardly come twice."""


class Start(NamedTuple):
    """A status line."""

    version: bytes
    status: int
    reason: bytes


class Telling(NamedTuple):
    """A field whose name says something to us."""

    field: Field
    end_to_end: bool
    """Whether it is passed on."""


# Lines that have been looked at. Upstreams say nearly the same again and again, and a line means the same wherever it
# stands, so these are a memory and never a decision.
_starts: BoundedCache[bytes, Start] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)
_fields: BoundedCache[bytes, Field | Telling] = BoundedCache(KNOWN_MAX, KNOWN_LINE_MAX)


def start_of(line: bytes) -> Start:
    """The status line ``line``, without its CR LF.

    Raises:
        Malformed: it is none of HTTP/1.0 or 1.1.
    """
    start = _starts.get(line)
    if start is None:
        match = _STATUS.fullmatch(line)
        if match is None:
            raise Malformed("the response's status line is not of HTTP/1.0 or 1.1, or holds a forbidden character")
        version, status, reason = match.groups(b"")
        start = Start(version, int(status), reason)
        _starts.add(line, start)
    return start


def field_of(line: bytes) -> Field | Telling:
    """The field line ``line``, without its CR LF.

    Raises:
        Malformed: no valid name, a control character, a bare CR or LF, a folded value.
    """
    field = _fields.get(line)
    if field is None:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed("a header field of the response has no valid name, or holds a forbidden character")
        name, value = match.groups()
        lower = name.lower()
        field = plain = (name, lower, value.strip(b" \t"))
        if lower in _TELLING or is_hop_by_hop(lower):
            field = Telling(plain, not is_hop_by_hop(lower))
        if _fields.takes(line) and not may_be_secret(lower):
            _fields.add(line, field)
    return field
