"""Guard of the admin side: whether a request may be answered, by its Host, its origin and its credentials. Pure.

A browser sends requests of any page to any address. So over TCP a request passes three checks, in this order:

1. Host names the admin side. Otherwise a page could reach it under a name of its own (DNS rebinding): 421.
2. Origin, if there is one, is the admin side's own, and Sec-Fetch-Site is ``same-origin`` or ``none``: else 403.
3. It has the cookie or a token: else 401. A cookie alone does not suffice for a POST, which also needs an Origin.

The Unix socket needs none of these: no browser reaches it, and its mode admits one user. The address for scrapers has
no token and no page, so it refuses every Origin, and Sec-Fetch-Site as above. On loopback, which browsers of the
machine reach, Host must name it too; elsewhere a scraper may use any name. Pages without secrets have ``OriginGuard``,
which makes the first two checks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from .credentials import Credentials, TokenCheck

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_OWN_SITES = (b"same-origin", b"none")
_WRONG_HOST = "This site is not served under this Host; use the address that it is bound to."
_HTTP_PORT = 80
_TOKEN_FIELDS_MAX = 8
"""The bound on parameters of a query in which a token is looked for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused request: the status, the reason, and header fields that belong to the status."""

    status: int
    detail: str
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A right token in the URL: the answer is a redirect to the page without it, and this cookie (``Set-Cookie``)."""

    cookie: bytes


class Hosts:
    """The values of Host by which clients may name an admin side that is bound to an address.

    Args:
        bound: the address as bound, ``host:port``.
        configured: the address as configured; its host may be a name.
        machine: the names of this machine, which are allowed if ``bound`` is a wildcard address.
    """

    def __init__(self, bound: str, configured: str, machine: Iterable[str] = ()) -> None:
        host, _, port = bound.rpartition(":")
        self._port = port
        address = ipaddress.ip_address(host.strip("[]"))
        self._is_wildcard = address.is_unspecified
        names = {host, configured.rpartition(":")[0].lower()}
        if address.is_loopback or self._is_wildcard:
            names.update(_LOCAL_NAMES)
        if self._is_wildcard:
            names.update(name.lower() for name in machine)
        self._names = frozenset(names)

    def accept(self, host: bytes) -> bool:
        """Whether a value of Host names this address.

        The port must be the bound one, except for a wildcard address: its port may be mapped to another one.
        """
        name, port = _split_host(host.decode("latin-1").lower())
        if self._is_wildcard:
            return name in self._names or _is_address(name)
        return name in self._names and (port or str(_HTTP_PORT)) == self._port


class Guard(Protocol):
    """Decides whether a request may be answered."""

    def check(self, request: InboundRequest) -> Refusal | Exchange | None:
        """Return None if the request may be answered, else the refusal, or the exchange of a token for a cookie."""
        ...


class UnixGuard:
    """The guard of a Unix socket, which accepts every request."""

    def check(self, request: InboundRequest) -> Refusal | Exchange | None:
        """Return None for every request: each may be answered."""
        return None


class ScraperGuard:
    """The guard of the address for scrapers, which refuses requests that a browser sends for a page.

    Args:
        bound: the address as bound, ``host:port``. If it is a loopback address, Host must be one or ``localhost``.
        configured: the address as configured; Host may be its name too.
    """

    def __init__(self, bound: str, configured: str) -> None:
        self._is_loopback = _is_loopback(bound.rpartition(":")[0])
        self._names = ("localhost", configured.rpartition(":")[0].lower())

    def check(self, request: InboundRequest) -> Refusal | Exchange | None:
        """Return None if the request may be answered, else the refusal."""
        host = _value(request.fields, b"host")
        if self._is_loopback and not self._accepts(b"" if host is None else host):
            return Refusal(421, _WRONG_HOST)
        return _foreign(request.fields, None)

    def _accepts(self, host: bytes) -> bool:
        """Whether Host names loopback. Its port may be that of a forwarding."""
        name, _ = _split_host(host.decode("latin-1").lower())
        return name in self._names or _is_loopback(name)


class OriginGuard:
    """The guard of pages without secrets, which accepts requests for themselves and of programs, not of other pages.

    Args:
        hosts: the values of Host that are the site's own.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def check(self, request: InboundRequest) -> Refusal | None:
        """Return None if the request may be answered, else the refusal."""
        host = _value(request.fields, b"host")
        if host is None or not self._hosts.accept(host):
            return Refusal(421, _WRONG_HOST)
        return _foreign(request.fields, host)


class TcpGuard:
    """The guard of an address.

    Args:
        hosts: the values of Host that are the admin side's own.
        credentials: the credentials of the process.
        port: the port, which becomes a part of the cookie's name: a browser has one set of cookies for all ports of a
            host.
        has_ctl: whether the admin side has the Unix socket of ``umbel ctl``, which prints further URLs.
    """

    def __init__(self, hosts: Hosts, credentials: Credentials, port: str, *, has_ctl: bool) -> None:
        self._origins = OriginGuard(hosts)
        self._has_ctl = has_ctl
        self._credentials = credentials
        self._cookie = f"umbel-admin-{port}".encode()

    def check(self, request: InboundRequest) -> Refusal | Exchange | None:
        """Return None if the request may be answered, else the refusal, or the exchange of a token for a cookie."""
        if (refusal := self._origins.check(request)) is not None:
            return refusal
        fields = request.fields
        client = request.peer[0] if request.peer is not None else ""
        authorization = _value(fields, b"authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() != b"bearer":
                return _unauthorized("Authorization must be Bearer with the token of [admin].")
            return self._refusal_of(self._credentials.check_token(token.strip(), client, one_time=False))
        has_cookie = any(map(self._credentials.is_cookie, _cookies(fields, self._cookie)))
        if request.method == "GET" and (given := _token_in(request.target)) is not None:
            # With the cookie, a URL that is opened a second time needs no token any more.
            result = TokenCheck.RIGHT if has_cookie else self._credentials.check_token(given, client, one_time=True)
            return self._refusal_of(result) or Exchange(self._set_cookie())
        if not has_cookie:
            new = ", or a new one from `umbel ctl url`" if self._has_ctl else ""
            also = ", or send the token of [admin]" if self._credentials.has_token else ""
            return _unauthorized(f"Open the URL that was printed on the terminal{new}{also}.")
        if request.method not in ("GET", "HEAD") and _value(fields, b"origin") is None:
            return Refusal(403, "A request with a cookie that changes something needs Origin.")
        return None

    def _refusal_of(self, result: TokenCheck) -> Refusal | None:
        if result is TokenCheck.RIGHT:
            return None
        if result is TokenCheck.BLOCKED:
            return Refusal(429, "Too many wrong tokens; wait a moment.", ((b"retry-after", b"5"),))
        new = " `umbel ctl url` prints a new URL." if self._has_ctl else ""
        return _unauthorized(f"The token is wrong, or was used, or is too old.{new}")

    def _set_cookie(self) -> bytes:
        value = self._credentials.cookie.encode()
        return b"%s=%s; Path=/; HttpOnly; SameSite=Strict" % (self._cookie, value)


def _foreign(fields: Sequence[Field], host: bytes | None) -> Refusal | None:
    """Return a refusal if a browser sends the request for a page of another origin than ``host``; None: of any."""
    origin, site = _value(fields, b"origin"), _value(fields, b"sec-fetch-site")
    if origin is not None and (host is None or origin.lower() != b"http://" + host.lower()):
        return Refusal(403, "The request comes from a page of another origin.")
    if site is not None and site not in _OWN_SITES:
        return Refusal(403, "The request comes from another site; enter the address by hand.")
    return None


def _unauthorized(detail: str) -> Refusal:
    return Refusal(401, detail, ((b"www-authenticate", b'Bearer realm="umbel admin"'),))


def _value(fields: Sequence[Field], name: bytes) -> bytes | None:
    """The values of a field, joined as RFC 9110 says, so that a second value never hides; None without the field."""
    values = [value for key, value in fields if key == name]
    return b", ".join(values) if values else None


def _cookies(fields: Sequence[Field], name: bytes) -> list[bytes]:
    """The values of the cookie ``name``."""
    pairs = [pair.strip().partition(b"=") for key, value in fields if key == b"cookie" for pair in value.split(b";")]
    return [value for key, _, value in pairs if key == name]


def _token_in(target: bytes) -> bytes | None:
    """The parameter ``token`` of the page's URL; None if it has none."""
    path, _, query = target.partition(b"?")
    if path != b"/":
        return None
    try:
        found = parse_qs(query, max_num_fields=_TOKEN_FIELDS_MAX).get(b"token")
    except ValueError:
        return None
    return found[0] if found else None


def _split_host(value: str) -> tuple[str, str]:
    """Host and port of a value of Host; the port is empty if there is none."""
    if value.endswith("]") or ":" not in value:
        return value, ""
    host, _, port = value.rpartition(":")
    return host, port


def _is_address(host: str) -> bool:
    return _address(host) is not None


def _is_loopback(host: str) -> bool:
    return (address := _address(host)) is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in a Host or a bound address; None if it is a name."""
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return None
