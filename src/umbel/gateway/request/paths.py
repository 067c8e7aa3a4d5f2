"""Rules for raw paths and queries: ambiguous ones are refused before a route is matched.

Proxies and frameworks interpret some paths differently (dot segments, encoded slashes, several slashes). If the gateway
read such a path in another way than a proxy in front of it, a client could bypass the proxy's access rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

from ...core.errors import RequestError
from ...core.http.syntax import BAD_ESCAPE, NOT_OF_TARGET

# pchar of RFC 3986 section 3.3 without percent signs. Such a path is unambiguous if no segment begins with a dot.
_PLAIN = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_AMBIGUOUS = re.compile(rb"%(?:00|2[Ff]|5[Cc])")
_ENCODED_SLASH = re.compile(rb"%2[Ff]")
forbidden_in_query: Callable[[bytes], object] = NOT_OF_TARGET.search
"""Finds a byte that a raw query must not hold; None if there is none."""
AMBIGUOUS = "The path holds an encoded slash, backslash or NUL."
"""The detail of the refusal of such a path."""
_DOTS = frozenset({b".", b".."})
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


def check_path(raw: bytes, *, slashes: bool = False) -> None:
    """Check that a raw path is well-formed, and that all parsers interpret it in the same way.

    ``raw`` is the request target without its query.

    Several slashes in a row are allowed. At the beginning ``merged_path`` redirects them. Elsewhere werkzeug redirects
    a path that matches a rule only with single slashes. Within the value of a ``<path:…>`` variable they are kept, so a
    proxy that merges slashes sees another path there.

    With ``slashes`` encoded slashes are allowed, but no dot segment between them: an upstream may decode them.

    Raises:
        RequestError: 400, the path is malformed or ambiguous. The message does not contain the path.
    """
    if _PLAIN.fullmatch(raw) and b"/." not in raw:
        return
    raw = origin_form(raw)
    if not raw.startswith(b"/"):
        raise RequestError(400, "The request target must be a path that begins with a slash.")
    if b"\\" in raw or b"\0" in raw:
        raise RequestError(400, "The path holds a backslash or NUL, which is refused even if it is percent-encoded.")
    if NOT_OF_TARGET.search(raw):
        raise RequestError(400, "The path holds a character that must be percent-encoded.")
    if BAD_ESCAPE.search(raw):
        raise RequestError(400, "The path holds a percent sign that is not followed by two hex digits.")
    if slashes:
        raw = _ENCODED_SLASH.sub(b"/", raw)
    if _AMBIGUOUS.search(raw):
        raise RequestError(400, AMBIGUOUS)
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    if not _DOTS.isdisjoint(segments):
        raise RequestError(400, "The path holds a dot segment.")
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(400, "The path is not UTF-8.") from error


def check_authority(raw: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that a request target in absolute form names the host of the field Host (RFC 9112 section 3.2.2).

    Otherwise a proxy that follows the target and a route that follows the field would see two hosts. Umbel's own server
    has checked this already.

    Raises:
        RequestError: 400, it names another one, or there is not exactly one Host.
    """
    absolute = _ABSOLUTE.match(raw)
    if absolute is None:
        return
    scheme, _, authority = absolute[0].decode("latin-1").partition("://")
    hosts = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    if len(hosts) != 1 or _portless(authority, scheme.lower()) != _portless(hosts[0], scheme.lower()):
        raise RequestError(400, "The target names another host or port than the Host field.")


def merged_path(raw: bytes) -> bytes | None:
    """The path to redirect to if ``raw``, which has been checked, begins with several slashes; else None.

    Without the redirect werkzeug would match the path as if it had one slash, and an access rule of a proxy for the
    path with one slash would not apply.
    """
    raw = origin_form(raw)
    return b"/" + raw.lstrip(b"/") if raw.startswith(b"//") else None


def origin_form(raw: bytes) -> bytes:
    """The path of a raw target without its query: of ``http://host/path`` the path, else ``raw`` itself."""
    absolute = _ABSOLUTE.match(raw)
    return raw if absolute is None else raw[absolute.end() :] or b"/"


def relative_redirect(url: str, scheme: str, host: str) -> str:
    """``url`` without scheme and host, if they are those of the request; else ``url`` unchanged.

    A relative Location (RFC 9110 section 10.2.2) is right even if the gateway does not know the client's scheme or
    host.
    """
    parts = urlsplit(url)
    if parts.scheme != scheme or _portless(parts.netloc, scheme) != _portless(host, scheme):
        return url
    path = "/" + parts.path.lstrip("/")  # A URL that begins with two slashes would name another host.
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def _portless(host: str, scheme: str) -> str:
    return host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":"))


def check_query(raw: bytes) -> None:
    """Check that a raw query has only characters of a URI (RFC 3986 section 3.4).

    Raises:
        RequestError: 400, the query has another character.
    """
    if forbidden_in_query(raw):
        raise RequestError(400, "The query holds a character that must be percent-encoded.")


def raw_path(path: str, raw: bytes | None) -> bytes:
    """The raw path of an ASGI scope. Without the optional ``raw_path``, ``path`` is percent-encoded again."""
    if raw is None:
        raw = quote(path).encode("ascii")
    return raw.partition(b"?")[0]


def scope_in_origin_form(scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """An ASGI scope with the path of a target in absolute form (``http://host/path``) as its ``path``.

    Another server gives such a target unchanged. Without ``raw_path`` the scope stays as it is: ``check_path`` refuses
    its path.
    """
    raw = scope.get("raw_path")
    if scope["path"].startswith("/") or raw is None:
        return scope
    raw = origin_form(raw.partition(b"?")[0])
    return {**scope, "path": unquote(raw.decode("latin-1")), "raw_path": raw} if raw.startswith(b"/") else scope
