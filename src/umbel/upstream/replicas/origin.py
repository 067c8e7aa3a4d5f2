"""Origins, by which connections are kept, and replicas, the parsed base URLs of an upstream. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import msgspec
from msgspec.structs import replace

from ...core.http.host import split_host
from ..errors import BadRequest

_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """Origin of connections: a request may reuse any connection of its own origin, and no other."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """Host in ASCII (IDNA), an IPv6 address without brackets."""
    port: int
    uds: str | None = None
    """Path of a Unix socket to connect to instead of host and port."""
    sni: str | None = None
    """Server name for TLS, both sent and verified; None: the host."""

    @property
    def where(self) -> str:
        """The origin in words, for records."""
        return f"unix:{self.uds}" if self.uds is not None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Replica:
    """One base URL of an upstream, parsed."""

    name: str
    """The base URL as configured; for an address from DNS, the URL and the address."""
    url: httpx.URL
    """Scheme, host and port of the base URL."""
    origin: Origin
    host: bytes
    """Value of the field Host."""
    base: bytes
    """Prefix of every target: empty, or a path without a slash at its end."""

    @classmethod
    def parse(cls, text: str, *, server_name: str | None = None, host: str | None = None) -> Replica:
        """Parse a base URL: ``http://``, ``https://`` or ``unix:/path`` (HTTP without TLS over a Unix socket).

        Args:
            server_name: the server name for TLS, sent and verified; without effect unless the URL is https. None: the
                name in ``host``, else the host of the URL.
            host: value of the field Host, a name or an address with or without a port. None: the authority of the URL.

        Raises:
            BadRequest: the URL has another scheme, no host, credentials, a query or a fragment, or the path of the
                Unix socket is not absolute. The message does not contain the URL.
            httpx.InvalidURL: ``text`` is no URL, or its host is no valid host name.
        """
        if text.startswith("unix:"):
            uds = text.removeprefix("unix:")
            if not uds.startswith("/"):
                raise BadRequest('a unix: URL needs an absolute path, such as "unix:/run/users.sock"')
            # RFC 9110 section 7.2 requires the field Host, and the path of a socket is no host.
            field = (host or "localhost").encode("ascii")
            return cls(text, httpx.URL("http://localhost"), Origin("http", "localhost", 80, uds), field, b"")
        if "?" in text or "#" in text:
            raise BadRequest("the URL of an upstream must be a base URL, without query and fragment")
        url = httpx.URL(text)
        if url.userinfo:
            raise BadRequest("the URL of an upstream must not hold credentials; send them in a header")
        base = url.raw_path.rstrip(b"/")
        root = url.copy_with(raw_path=b"/")
        if server_name is None and host is not None:
            server_name = split_host(host)[0].strip("[]")
        sni = server_name if url.scheme == "https" else None
        field = root.netloc if host is None else host.encode("ascii")
        return cls(text, root, replace(origin_of(root), sni=sni), field, base)


def origin_of(url: httpx.URL) -> Origin:
    """The origin of a URL.

    Raises:
        BadRequest: the URL is not http or https, or has no host.
    """
    scheme = url.scheme
    standard = _PORTS.get(scheme)
    host = url.raw_host.decode("ascii")
    if standard is None or not host:
        raise BadRequest(f"{scheme or 'a relative'} URL: an upstream needs an http or https URL with a host")
    return Origin(scheme, host, url.port or standard)
