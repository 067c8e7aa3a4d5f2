"""Rewriting of the fields of a response that name the upstream's host or paths: Location and Set-Cookie. Pure.

Theory
------
**Location.** A Location names the upstream itself if it is a URL (or begins with ``//``) whose host and port are those
of a base URL, or of the Host that the upstream gets; or if it is a path, which is relative to the URL of the request.
It becomes a path of the gateway without scheme and host, which is right whatever scheme and host the client used
(RFC 9110 section 10.2.2). The path of the base URL is removed. Then the beginning of the path that the template of the
route has given to the request is replaced by the beginning that the client has sent.

Everything else stays as it is: another host, another scheme than http and https, a relative path, a path outside of the
base URL, and whatever a browser may read in another way: a backslash, a dot segment, a character that is no visible
ASCII. Several slashes at the beginning of the new path become one, because ``//`` would begin a host. So no value of an
upstream becomes a redirect to a host that it has not named.

**Set-Cookie.** Domain and Path are the only attributes that are changed, in any case and order, and each time that they
occur, since browsers take the last one (RFC 6265 section 5.3). All other bytes stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_PLAIN = re.compile(rb"[!-\[\]-~]+")
"""Visible ASCII without the backslash."""
_AUTHORITY = re.compile(rb"(?:(https?):)?//([^/?#]*)", re.IGNORECASE)
_PATH_END = re.compile(rb"[?#]")
_PORTS = {b"http": b":80", b"https": b":443"}
_DOTS = frozenset({b".", b".."})


class Base(NamedTuple):
    """A name of the upstream: the host of a base URL, or the Host that the upstream gets, and the path before all."""

    authority: bytes
    """Host and port in lower case, without the port that is the default of the scheme."""
    path: bytes
    """The path of the base URL, without a slash at its end; empty for the root."""

    @classmethod
    def of(cls, scheme: str, authority: str, path: str) -> Base:
        """Make a base from the parts of a base URL, which are ASCII."""
        return cls(_portless(authority.encode("ascii"), scheme.encode("ascii")), path.rstrip("/").encode("ascii"))


class Moved(NamedTuple):
    """The beginnings of one request's path, each without a slash at its end: to the upstream, and from the client."""

    upstream: bytes
    client: bytes


UNMOVED = Moved(b"", b"")


def rewritten_location(location: bytes, bases: Iterable[Base], moved: Moved | None) -> bytes:
    """The Location for the client.

    Args:
        location: the value of the field.
        bases: the names of the upstream that has sent the response.
        moved: how the path of the request was changed; None: it is unknown, so only the base URL's path is removed.
    """
    if _PLAIN.fullmatch(location) is None:
        return location
    authority = _AUTHORITY.match(location)
    if authority is not None:
        rest = location[authority.end() :]
        named = {_portless(authority[2], scheme) for scheme in ([authority[1].lower()] if authority[1] else _PORTS)}
        paths = {base.path for base in bases if base.authority in named}
    elif location.startswith(b"/"):
        rest, paths = location, {base.path for base in bases}
    else:
        return location
    end = _PATH_END.search(rest)
    path, tail = (rest, b"") if end is None else (rest[: end.start()], rest[end.start() :])
    path = path or b"/"
    if _has_dot_segment(path):
        return location
    base = max((each for each in paths if _is_within(path, each)), key=len, default=None)
    if base is None:
        return location
    path = path[len(base) :] or b"/"
    if moved is not None:
        if authority is None and moved.client and _is_within(path, moved.client):
            return location  # A path that the client can use already: the upstream knows where it is published.
        if _is_within(path, moved.upstream):
            path = moved.client + path[len(moved.upstream) :]
    return b"/" + path.lstrip(b"/") + tail


def _is_within(path: bytes, beginning: bytes) -> bool:
    """Whether a path is ``beginning`` (without a slash at its end) or below it."""
    return path == beginning or path.startswith(beginning + b"/")


def _has_dot_segment(path: bytes) -> bool:
    return not _DOTS.isdisjoint(
        unquote_to_bytes(segment.partition(b";")[0])
        for segment in path.split(b"/")
        if b"." in segment or b"%" in segment
    )


def _portless(authority: bytes, scheme: bytes) -> bytes:
    return authority.lower().removesuffix(_PORTS[scheme])


class CookieRewrite(NamedTuple):
    """The compiled form of ``cookie_domain`` and ``cookie_path``."""

    domains: Mapping[bytes, bytes]
    """New values of Domain by the upstream's value, in lower case and without a dot at its beginning; empty: none."""
    paths: Sequence[tuple[bytes, bytes]]
    """Beginnings of Path and their new ones, the longest first."""

    @classmethod
    def of(cls, domains: Mapping[str, str], paths: Mapping[str, str]) -> CookieRewrite:
        """Compile the tables of the configuration."""
        ordered = sorted(paths.items(), key=lambda pair: len(pair[0]), reverse=True)
        return cls(
            {old.encode("ascii"): new.encode("ascii") for old, new in domains.items()},
            tuple((old.encode("ascii"), new.encode("ascii")) for old, new in ordered),
        )

    def rewritten(self, cookie: bytes) -> bytes:
        """The value of Set-Cookie for the client."""
        if not (self.domains or self.paths):
            return cookie
        pair, *attributes = cookie.split(b";")
        return b";".join([pair, *(new for each in attributes if (new := self._attribute(each)) is not None)])

    def _attribute(self, attribute: bytes) -> bytes | None:
        """The attribute with its new value; None: it is removed."""
        name, mark, value = attribute.partition(b"=")
        kind, text = name.strip(b" \t").lower(), value.strip(b" \t")
        if kind == b"domain":
            new = self.domains.get(text.removeprefix(b".").lower())
            return attribute if new is None else name + mark + new if new else None
        if kind == b"path":
            for old, new in self.paths:
                if text == old:
                    return name + mark + new
                if text.startswith(old.rstrip(b"/") + b"/"):
                    return name + mark + new.rstrip(b"/") + text[len(old.rstrip(b"/")) :]
        return attribute
