"""The rules for a request's raw path: what no two parsers read alike is refused, before anything is matched.

Called for every request. Proxies and frameworks disagree about each of these forms, so the strictest reading is the
only safe one. Holds no state and knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from ...core.errors import RequestError
from ...core.http.syntax import BAD_ESCAPE, NOT_OF_TARGET, NOT_TARGET_CHARS, bytes_pattern

# RFC 3986 section 3.3 (pchar) without percent signs. Together with "no segment begins with a dot" it is always safe.
_PLAIN = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_FORBIDDEN = bytes_pattern(rf"[{NOT_TARGET_CHARS}\\]")
_AMBIGUOUS = re.compile(rb"%(?:00|2[Ff]|5[Cc])")
forbidden_in_query: Callable[[bytes], object] = NOT_OF_TARGET.search
"""Finds a character that no raw query may hold; None if there is none."""
_DOTS = frozenset({b".", b".."})
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


def check_path(raw: bytes) -> None:
    """Pass a raw path that every parser reads alike.

    ``raw`` is the target without its query. ``//`` passes: it is merged by a redirect, at the beginning of a path
    (``merged_path``) as inside it (werkzeug).

    Raises:
        RequestError: 400; the text names the rule and none of the path.
    """
    if _PLAIN.fullmatch(raw) and b"/." not in raw:
        return
    raw = _origin_form(raw)
    if not raw.startswith(b"/"):
        raise RequestError(400, "The request target must be a path that begins with a slash.")
    if _FORBIDDEN.search(raw):
        raise RequestError(400, "The path holds a character that must be percent-encoded.")
    if BAD_ESCAPE.search(raw):
        raise RequestError(400, "The path holds a percent sign that is not followed by two hex digits.")
    if _AMBIGUOUS.search(raw):
        raise RequestError(400, "The path holds an encoded slash, backslash or NUL.")
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    if not _DOTS.isdisjoint(segments):
        raise RequestError(400, "The path holds a dot segment.")
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(400, "The path is not UTF-8.") from error


def merged_path(raw: bytes) -> bytes | None:
    """The path to redirect to where ``raw``, which has been checked, begins with several slashes; else None.

    werkzeug would match it as if there were one. A proxy in front of us would not, so its rule for the path would be
    passed by.
    """
    raw = _origin_form(raw)
    return b"/" + raw.lstrip(b"/") if raw.startswith(b"//") else None


def _origin_form(raw: bytes) -> bytes:
    absolute = _ABSOLUTE.match(raw)
    return raw if absolute is None else raw[absolute.end() :] or b"/"


def relative_redirect(url: str, scheme: str, host: str) -> str:
    """``url`` without its origin, where that is the one of a request with this scheme and Host field.

    A relative Location (RFC 9110 section 10.2.2) is right whatever the proxies between say of the client's origin.
    """
    parts = urlsplit(url)
    if parts.scheme != scheme or _portless(parts.netloc, scheme) != _portless(host, scheme):
        return url
    path = "/" + parts.path.lstrip("/")  # Two slashes would begin another host's address.
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def _portless(host: str, scheme: str) -> str:
    return host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":"))


def check_query(raw: bytes) -> None:
    """Pass a raw query made of the characters of a URI (RFC 3986 section 3.4); what it says is the route's affair.

    Raises:
        RequestError: 400.
    """
    if forbidden_in_query(raw):
        raise RequestError(400, "The query holds a character that must be percent-encoded.")


def raw_path(path: str, raw: bytes | None) -> bytes:
    """The path as it came. A server that does not say (ASGI leaves it optional) is taken at its decoded word."""
    if raw is None:
        raw = quote(path).encode("ascii")
    return raw.partition(b"?")[0]
