"""Status fields: the response fields that an answer takes over together with the status of a call. Pure.

A 401 without WWW-Authenticate, a 405 without Allow or a redirect without Location is incomplete. ``_BELONGS`` is the
only table of the fields that belong to a status.

Values are not changed. So a relative Location is relative to the client's URL, and an absolute one may name a host that
the client cannot reach: the gateway cannot map the URLs of an upstream to its own paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...core.http.header_field import Field, raw_value

REDIRECTS = frozenset(range(300, 400)) - {304}
"""The statuses of RFC 9110 section 15.4, without 304."""
CREATED = 201
STATUS_FROM = frozenset({201, 202, 204})
"""The statuses that the answer takes over from the call that ``status_from`` names."""

VALUES_MAX = 16 * 1024
"""The most bytes of all values together. Clients accept heads of 16 KiB to 64 KiB."""
FIELDS_MAX = 32
"""The most fields."""

_BELONGS: Mapping[bytes, frozenset[int]] = {
    # RFC 9110 section 11.6.1, and RFC 6750 section 3.1 for 400 and 403; RFC 9449 section 8 for the nonce.
    b"www-authenticate": frozenset({400, 401, 403}),
    b"dpop-nonce": frozenset({400, 401}),
    # RFC 9110: sections 10.2.1, 10.2.2 (the client's own conflict aside), 10.2.3 with 15.5.14, 14.4.
    b"allow": frozenset({405}),
    # RFC 9110 section 10.2.2. A 202 or 204 may name the resource that shows the result, or that was changed.
    b"location": REDIRECTS | STATUS_FROM,
    b"retry-after": REDIRECTS | {413, 429, 503},
    b"content-range": frozenset({206, 416}),
    b"accept-ranges": frozenset({416}),
    # RFC 9110 sections 12.5.1, 12.5.3 and 15.5.16; RFC 5789 section 3.1; https://www.w3.org/TR/ldp/ section 7.1.
    b"accept-encoding": frozenset({415}),
    b"accept": frozenset({415}),
    b"accept-post": frozenset({415}),
    b"accept-patch": frozenset({415}),
    # RFC 7725 section 4: rel="blocked-by".
    b"link": frozenset({451}),
}
# The beginnings of the names of RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers), and of the older
# fields X-RateLimit-Limit, -Remaining, -Reset and -Used.
_QUOTAS = (b"ratelimit", b"x-ratelimit", b"x-rate-limit")
_NOT_ALLOWED, _TOO_MANY = 405, 429
# A redirect without Location means nothing to a client (RFC 9110 section 15.4), and a 405 must have Allow (15.5.6).
_NEEDS: Mapping[int, str] = {**dict.fromkeys((301, 302, 303, 307, 308), "Location"), _NOT_ALLOWED: "Allow"}
# A response has at most one of each (RFC 9110 section 5.3). Of repeated ones the first counts, as in browsers.
_SINGLE = frozenset({b"location", b"retry-after", b"content-range", b"dpop-nonce"})


def fields_of_status(status: int, fields: Iterable[Field]) -> tuple[tuple[str, str], ...]:
    """The fields of a response that belong to its status, in their order, with names in lower case.

    A field that would exceed ``VALUES_MAX`` or ``FIELDS_MAX`` is left out.
    """
    found: list[tuple[str, str]] = []
    seen: set[bytes] = set()
    room = VALUES_MAX
    for _, name, value in fields:
        if not _belongs(name, status) or (name in _SINGLE and name in seen):
            continue
        seen.add(name)
        text = value.decode("latin-1")
        # A foreign httpx transport may give a value that no field can hold.
        if len(value) <= room and len(found) < FIELDS_MAX and raw_value(text) is not None:
            room -= len(value)
            found.append((name.decode("latin-1"), text))
    return tuple(found)


def missing_field(status: int, fields: Iterable[tuple[str, str]]) -> str:
    """The name of the field without which the answer does not take over this status; empty: none is missing.

    An empty Allow is complete (the resource allows no method); an empty Location is missing.

    Args:
        status: the status of a response.
        fields: the fields of the response that belong to the status (``fields_of_status``).
    """
    needed = _NEEDS.get(status, "")
    found = any(name == needed.lower() and (value or status == _NOT_ALLOWED) for name, value in fields)
    return "" if found else needed


def _belongs(name: bytes, status: int) -> bool:
    if status == _TOO_MANY and name.startswith(_QUOTAS):
        return True
    return status in _BELONGS.get(name, ())
