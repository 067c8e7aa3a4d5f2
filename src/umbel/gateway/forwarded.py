"""Where a request came from, as far as that can be believed, and what upstreams are told of it.

Used by ``connection.py`` for every request. ``X-Forwarded-*`` and the like count only if they come from one of
``[server] trusted_proxies``; any other peer's are removed before a view, a plan or a hook can see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

from ..config.rules import UNIX_PEER
from ..model import Trace
from . import ids
from .fields import Field, Fields, read_fields

_VIA_LENGTH_MAX = 1024
_PEERS_MAX = 1024
_HOPS_MAX = 64
"""Of X-Forwarded-For, from the right; no request comes through so many proxies."""


class TrustedProxies:
    """The peers whose word is taken: addresses, networks, and ``unix`` for whoever comes through a Unix socket."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names of the configuration.

        Raises:
            ValueError: one is neither an address, a network nor ``unix``.
        """
        names = tuple(names)
        self._unix = UNIX_PEER in names
        self._networks = tuple(ip_network(name, strict=False) for name in names if name != UNIX_PEER)
        self._known: dict[str, bool] = {}
        """What is known of some peers: they come again, and a text is long in becoming an address."""

    def trusts(self, peer: str | None) -> bool:
        """Whether ``peer`` (an address; None for a Unix socket) is trusted."""
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            address = _address(peer)
            known = address is not None and any(address in network for network in self._networks)
            if len(self._known) >= _PEERS_MAX:
                self._known.clear()
            self._known[peer] = known
        return known


class Origin(NamedTuple):
    """Where a request came from. ``client`` is the nearest address that no trusted proxy vouches away."""

    client: str
    trusted: bool
    """Whether the peer that we talk to is a trusted proxy."""
    fields: Fields
    """The request's fields, less the claims of an untrusted peer."""
    peer: str | None
    http_version: str
    scheme: str

    @property
    def headers(self) -> Sequence[Field]:
        """The fields as they came, less the claims of an untrusted peer."""
        return self.fields.kept

    def claimed(self, name: str) -> str | None:
        """A field that counts only from a trusted peer."""
        return self.fields.get(name) if self.trusted else None

    def identify(self) -> tuple[str, Trace]:
        """The request's id and trace; an id is taken over from a trusted peer alone."""
        get = self.fields.get
        return ids.identify(self.claimed("x-request-id"), get("traceparent"), get("tracestate"))

    def always(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """What a gateway always tells an upstream: the request's id, and Via (RFC 9110 section 7.6.3)."""
        version = self.http_version
        own = _OWN_VIA.get(version) or f"{version} umbel"
        before = self.fields.get("via", "")
        # A chain longer than any real one is an attempt to grow our requests; it ends here.
        via = f"{before}, {own}" if 0 < len(before) <= _VIA_LENGTH_MAX else own
        return (("x-request-id", request_id), ("via", via))

    def forwarded_for(self) -> tuple[tuple[str, str], ...]:
        """``X-Forwarded-For``, ``-Proto`` and ``-Host``: a trusted peer's chain goes on, any other begins anew."""
        get, peer = self.fields.get, self.peer
        chain = get("x-forwarded-for")
        hops = f"{chain}, {peer}" if chain and peer else chain or peer
        said = get("x-forwarded-proto")
        proto = said.lower() if said is not None and said.lower() in ("http", "https") else self.scheme
        host = get("x-forwarded-host") or get("host")
        fields: tuple[tuple[str, str], ...] = (("x-forwarded-proto", proto),)
        if hops:
            fields = (("x-forwarded-for", hops), *fields)
        return (*fields, ("x-forwarded-host", host)) if host else fields


_OWN_VIA = {version: f"{version} umbel" for version in ("1.0", "1.1", "2")}


def origin_of(
    peer: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    trust: TrustedProxies,
    *,
    http_version: str = "1.1",
    scheme: str = "http",
) -> Origin:
    """Read the origin of a request off its peer and its fields. Never raises: a malformed claim is no claim."""
    trusted = trust.trusts(peer)
    fields = read_fields(headers, believed=trusted)
    client = peer or ""
    if trusted and (chain := fields.get("x-forwarded-for")):
        client = _client(chain, trust) or client
    return Origin(client, trusted, fields, peer, http_version, scheme)


def origin_in(scope: Mapping[str, Any], trust: TrustedProxies) -> Origin:
    """The origin of the request, or the WebSocket, of an ASGI scope."""
    client = scope.get("client")
    return origin_of(
        client[0] if client else None,
        scope["headers"],
        trust,
        http_version=scope["http_version"],
        scheme=scope["scheme"],
    )


def _client(chain: str, trust: TrustedProxies) -> str | None:
    """The right-most address of the chain that is no proxy of ours; the left-most if all are."""
    last: str | None = None
    hops = chain.rsplit(",", _HOPS_MAX)
    for hop in reversed(hops[-_HOPS_MAX:]):
        address = _address(hop.strip())
        if address is None:
            break
        last = str(address)
        if not trust.trusts(last):
            break
    return last


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
