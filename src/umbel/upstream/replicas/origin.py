"""Origins and replicas: what connections are kept by, and one base URL of an upstream, parsed once. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import msgspec
from msgspec.structs import replace

from ..errors import BadRequest

_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """Origin of connections: a request may reuse any connection of its origin, and none of another."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """ASCII (IDNA) and without brackets, as name resolution and TLS want it."""
    port: int
    uds: str | None = None
    """The path of a Unix socket to connect to instead of host and port."""
    sni: str | None = None
    """The name to ask for and to verify in TLS, where it is not the host."""

    @property
    def where(self) -> str:
        """The origin in words, for records."""
        return f"unix:{self.uds}" if self.uds is not None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Replica:
    """One base URL of an upstream, parsed."""

    name: str
    """The base URL as the configuration has it."""
    url: httpx.URL
    """Scheme, host and port."""
    origin: Origin
    host: bytes
    """The value of the Host field."""
    base: bytes
    """The prefix of every target: empty, or a path without a slash at its end."""

    @classmethod
    def parse(cls, text: str, *, server_name: str | None = None) -> Replica:
        """The replica of one of the configuration's URLs: ``http://``, ``https://`` or ``unix:/path``."""
        if text.startswith("unix:"):
            # RFC 9110 section 7.2 wants a Host; a socket's path is none.
            url = httpx.URL("http://localhost")
            return cls(text, url, Origin("http", "localhost", 80, text.removeprefix("unix:")), b"localhost", b"")
        url = httpx.URL(text)
        base = url.raw_path.rstrip(b"/")
        root = url.copy_with(raw_path=b"/")
        sni = server_name if url.scheme == "https" else None
        return cls(text, root, replace(origin_of(root), sni=sni), root.netloc, base)


def origin_of(url: httpx.URL) -> Origin:
    """The origin of a URL.

    Raises:
        BadRequest: it is no http or https URL, or has no host.
    """
    scheme = url.scheme
    standard = _PORTS.get(scheme)
    host = url.raw_host.decode("ascii")
    if standard is None or not host:
        raise BadRequest(f"{scheme or 'a relative'} URL: only http and https have upstreams")
    return Origin(scheme, host, url.port or standard)
