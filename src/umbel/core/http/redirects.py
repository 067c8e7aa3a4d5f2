"""Redirects of upstreams: the request of a call that follows a redirect, or the reason why there is none. Pure.

Only a redirect to the origin that has sent it is followed (RFC 9110 section 4.3.1), and only within the path of the
base URL. So no credential reaches another origin, and no upstream can make the gateway send requests elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from msgspec.structs import replace

from ..call import PreparedRequest
from .header_field import Field
from .syntax import BAD_ESCAPE

FOLLOWED = frozenset({301, 302, 303, 307, 308})
"""The statuses of redirects that are followed. 300 and 305 name no single target; 304 is no redirect."""
REDIRECTS_MAX = 5
"""The most redirects that one call follows."""

_TARGET_MAX = 16 * 1024
# RFC 3986 section 2: the characters of a URI. urlsplit() would drop tabs and line breaks.
_URI = re.compile(rb"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
# An empty authority: some parsers take the first segment of the path for the host.
_NO_HOST = re.compile(rb"(?:[A-Za-z][A-Za-z0-9+.-]{0,30}:)?///")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_DOTS = frozenset({b".", b".."})
_SEPARATORS = re.compile(rb"[/\\]")
# Besides Content-*: fields about a body, or about the change that a request with a body makes.
_OF_CONTENT = frozenset({b"digest", b"repr-digest", b"idempotency-key"})


class NotFollowedError(Exception):
    """A redirect is not followed. The message is the reason, without any value of the response."""


def followed(
    prepared: PreparedRequest, status: int, fields: Sequence[Field], scheme: str, host: bytes, base: bytes, hops: int
) -> PreparedRequest:
    """Make the request that follows a redirect (RFC 9110 section 15.4).

    A 303 makes it a GET, and so does a 301 or 302 after a POST; HEAD stays HEAD. Then the content is lost, and with it
    the fields about it. All other fields stay.

    Args:
        prepared: the request that was redirected.
        status: the status of the redirect, of ``FOLLOWED``.
        fields: the header fields of the redirect.
        scheme: ``http`` or ``https``.
        host: the field Host of ``prepared``.
        base: the path of the base URL, without a slash at its end.
        hops: the number of redirects that the call has followed.

    Raises:
        NotFollowedError: the Location is missing or malformed, names another origin, or leaves the base URL; or the
            call has followed ``REDIRECTS_MAX`` redirects.
    """
    if hops >= REDIRECTS_MAX:
        raise NotFollowedError(f"the call has followed {REDIRECTS_MAX} already")
    location = next((value for _, name, value in fields if name == b"location"), b"")
    target = _target(location, prepared.target, scheme, host, base)
    method = prepared.method
    if (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST"):
        headers = [f for f in prepared.headers if not (f[1].startswith(b"content-") or f[1] in _OF_CONTENT)]
        return replace(prepared, method="GET", target=target, headers=headers, content=None, beginnings=None)
    return replace(prepared, target=target, beginnings=None)


def _target(location: bytes, target: bytes, scheme: str, host: bytes, base: bytes) -> bytes:
    """The target that a Location names, relative to the base URL; ``target`` is the one of the redirected request.

    Raises:
        NotFollowedError: as ``followed``.
    """
    if _URI.fullmatch(location) is None or _NO_HOST.match(location) is not None:
        raise NotFollowedError("its Location is missing or no URI")
    authority = host.decode("latin-1")
    try:
        here = f"{scheme}://{authority}{(base + target).decode('latin-1')}"
        parts = urlsplit(urljoin(here, location.decode("ascii")))
    except ValueError:
        raise NotFollowedError("its Location is no URI") from None
    if parts.scheme != scheme or _portless(parts.netloc, scheme) != _portless(authority, scheme):
        raise NotFollowedError("its Location names another origin")
    path = parts.path.encode("latin-1") or b"/"
    if path != base and not path.startswith(base + b"/"):
        raise NotFollowedError("its Location is outside of the upstream's base URL")
    if BAD_ESCAPE.search(location) or b"%00" in path:
        raise NotFollowedError("its Location is no URI")
    # Some servers remove what follows a ";" in a segment, and would see a dot segment in "..;a".
    segments = _SEPARATORS.split(unquote_to_bytes(path))
    if not _DOTS.isdisjoint(segment.partition(b";")[0] for segment in segments):
        raise NotFollowedError("its Location holds a dot segment")
    relative = (path[len(base) :] or b"/") + (b"?" + parts.query.encode("latin-1") if parts.query else b"")
    if len(relative) > _TARGET_MAX:
        raise NotFollowedError("its Location is too long")
    return relative


def _portless(authority: str, scheme: str) -> str:
    return authority.lower().removesuffix(_DEFAULT_PORTS[scheme])
