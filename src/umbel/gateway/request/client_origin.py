"""Where a request came from, as far as that can be believed, and the fields that say so to upstreams.

``X-Forwarded-*``, ``Forwarded`` and the like count only if they come from one of ``[server] trusted_proxies``; any
other peer's are removed before a view, a plan or a hook can see them.

One rule for all of them
------------------------
Each proxy adds a member at the right of ``X-Forwarded-For``: the address that it was asked from. So the members are
gone through from the right for as long as they are proxies of ours. The first that is none is the client, and its
place, counted from the right, is the client's place in ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` too: what stands
further left is what the client itself claims. A list that is shorter was written once and passed on: its first member
counts.

A list that is longer than X-Forwarded-For has more members than hops. Of hosts the place is kept then: links are made
of them, and nobody may choose the host of another's link. Of schemes the first member counts: a client that claims one
for itself misleads nobody else, and the proxy next to us often speaks http.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import msgspec

from ...config.schema.types import UNIX_PEER
from ...core.call import FieldBlock, block_of
from ...core.model import Trace
from ...net.bounded_cache import BoundedCache
from . import trace_ids
from .request_fields import Field, RequestFields, read_fields

_VIA_LENGTH_MAX = 1024
_PEERS_MAX = 1024
_SHORT = 256
"""Characters of a value of which something is remembered."""
_HOPS_MAX = 64
"""Of X-Forwarded-For, from the right; no request comes through so many proxies."""
_ADDRESS_LENGTH_MAX = 128
_HOST_LENGTH_MAX = 255
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HOST = re.compile(r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[([0-9A-Fa-f:.]+)\])(?::([1-9][0-9]{0,4}))?", re.ASCII)
_PORT_MAX = 65535
# An address with a port: IPv4, or IPv6 in brackets. The port may be hidden (RFC 7239 section 6.2).
_NODE = re.compile(r"\A(?:\[([^\]]*+)\]|([^:\[\]]*+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]++))?", re.ASCII)
_NEVER_SAID = frozenset(' \t"\\=')
"""What no value of Forwarded needs that says an address, a scheme or a host."""


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
        self.nobody = not names
        """Whether no peer's word is taken."""
        self._known: BoundedCache[str, bool] = BoundedCache(_PEERS_MAX, _ADDRESS_LENGTH_MAX)
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
            self._known.add(peer, known)
        return known


class ClientOrigin(msgspec.Struct, frozen=True):
    """Where a request came from. ``client`` is the nearest address that no trusted proxy vouches away."""

    client: str
    trusted: bool
    """Whether the peer that we talk to is a trusted proxy."""
    fields: RequestFields
    """The request's fields, less the claims of an untrusted peer."""
    peer: str | None
    http_version: str
    scheme: str
    """What the client speaks: ``http`` or ``https``."""
    host: str | None
    """The host that the client asked for; None if no field says."""
    hops: tuple[str, ...] = ()
    """The members of X-Forwarded-For that go on: addresses without ports, and what is none as it came."""

    @property
    def headers(self) -> Sequence[Field]:
        """The fields as they came, less the claims of an untrusted peer."""
        return self.fields.kept

    def claimed(self, name: str) -> str | None:
        """A field that counts only from a trusted peer."""
        return self.fields.end_to_end.get(name) if self.trusted else None

    def identify(self) -> tuple[str, Trace]:
        """The request's id and trace; an id is taken over from a trusted peer alone."""
        if not self.trusted and not self.fields.names_trace:
            return trace_ids.new_identity()  # Nearly every request that comes from outside.
        get = self.fields.end_to_end.get
        return trace_ids.identify(self.claimed("x-request-id"), get("traceparent"), get("tracestate"))

    def via(self) -> FieldBlock:
        """What a gateway says to an upstream beside the request's id: Via (RFC 9110 section 7.6.3)."""
        key = (self.fields.via, self.http_version)
        try:
            return _vias.entries[key]
        except KeyError:
            return _via(*key)

    def forwarded_for(self) -> FieldBlock:
        """``X-Forwarded-For``, ``-Proto`` and ``-Host``: a trusted peer's chain goes on, any other begins anew.

        The client's ``Connection`` has no say in these: they are the gateway's own.
        """
        hops, host = self.peer or "", self.host or ""
        if self.hops:
            hops = ", ".join((*self.hops, hops) if hops else self.hops)
        key = (hops, self.scheme, host)
        try:
            return _origins.entries[key]
        except KeyError:
            return _forwarded_for(*key)

    def rewritten(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of an ASGI scope that says what the client asked: its scheme, host and address, not the proxy's.

        So every absolute URL that a framework makes of it is one that the client can follow.
        """
        copy = {**scope, "headers": self.headers}
        if not self.trusted:
            return copy
        if (schemes := _SCHEMES_OF.get(scope["type"])) is not None:
            copy["scheme"] = schemes[self.scheme]
        if self.client != (self.peer or ""):
            copy["client"] = (self.client, 0)
        if self.host is not None and self.host != self.fields.get("host"):
            rest = [field for field in self.headers if field[0].lower() != b"host"]
            copy["headers"] = [(b"host", self.host.encode("latin-1")), *rest]
        return copy


# Clients come again and say the same, so the fields about them are made once, unless it is long.
_vias: BoundedCache[tuple[str, str], FieldBlock] = BoundedCache(256, _SHORT, size_of=lambda key: len(key[0]))
_origins: BoundedCache[tuple[str, str, str], FieldBlock] = BoundedCache(
    1024, _SHORT, size_of=lambda key: max(len(key[0]), len(key[2]))
)


def _via(before: str, version: str) -> FieldBlock:
    own = f"{version} umbel"
    # A chain longer than any real one is an attempt to grow our requests; it ends here.
    block = block_of([("via", f"{before}, {own}" if 0 < len(before) <= _VIA_LENGTH_MAX else own)])
    _vias.add((before, version), block)
    return block


def _forwarded_for(hops: str, scheme: str, host: str) -> FieldBlock:
    said = (("x-forwarded-for", hops), ("x-forwarded-proto", scheme), ("x-forwarded-host", host))
    block = block_of([field for field in said if field[1]])
    _origins.add((hops, scheme, host), block)
    return block


_SCHEMES_OF = {"http": {"http": "http", "https": "https"}, "websocket": {"http": "ws", "https": "wss"}}


def origin_of(
    peer: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    trust: TrustedProxies,
    http_version: str = "1.1",
    scheme: str = "http",
) -> ClientOrigin:
    """Read the origin of a request off its peer and its fields. Never raises: a malformed claim is no claim."""
    trusted = not trust.nobody and trust.trusts(peer)
    fields = read_fields(headers, believed=trusted)
    if not trusted:
        return ClientOrigin(peer or "", False, fields, peer, http_version, scheme, fields.get("host"))
    addresses, schemes, hosts = _claims(fields)
    client, place, hops = _follow(addresses, trust)
    said = next(filter(None, schemes), "") if len(schemes) > len(addresses) else _at(place, schemes)
    host = _at(place, hosts)
    if not _is_host(host):
        host = fields.get("host", "")
    scheme = _SCHEMES.get(said.lower(), scheme)
    return ClientOrigin(client or peer or "", True, fields, peer, http_version, scheme, host or None, hops)


def origin_in(scope: Mapping[str, Any], trust: TrustedProxies) -> ClientOrigin:
    """The origin of the request, or the WebSocket, of an ASGI scope."""
    client = scope.get("client")
    return origin_of(
        client[0] if client else None,
        scope["headers"],
        trust,
        http_version=scope.get("http_version", "1.1"),
        scheme=_SCHEMES.get(scope["scheme"], "http"),
    )


def _claims(fields: RequestFields) -> tuple[list[str], list[str], list[str]]:
    """The addresses, schemes and hosts that a trusted peer reports of its hops, the nearest last."""
    said = [fields.get(f"x-forwarded-{name}") for name in ("for", "proto", "host")]
    if not any(said) and (forwarded := fields.get("forwarded")):
        return _read_forwarded(forwarded)
    addresses, schemes, hosts = (_members(value) if value else [] for value in said)
    return addresses, schemes, hosts


def _members(value: str) -> list[str]:
    return [member.strip(" \t") for member in value.rsplit(",", _HOPS_MAX)[-_HOPS_MAX:]]


def _read_forwarded(value: str) -> tuple[list[str], list[str], list[str]]:
    """The same of RFC 7239's field, whose elements are one for each hop; nothing if it is malformed."""
    elements: list[dict[str, str]] = []
    for member in _members(value):
        element: dict[str, str] = {}
        for pair in member.split(";"):
            name, mark, said = pair.strip(" \t").partition("=")
            if said[:1] == '"' and said[-1:] == '"' and len(said) > 1:
                said = said[1:-1]
            if not _NEVER_SAID.isdisjoint(said) or (name and not mark):
                return [], [], []
            if name:
                element[name.lower()] = said
        if element:
            elements.append(element)
    addresses, schemes, hosts = ([element.get(name, "") for element in elements] for name in ("for", "proto", "host"))
    return addresses, schemes, hosts


def _follow(chain: Sequence[str], trust: TrustedProxies) -> tuple[str | None, int, tuple[str, ...]]:
    """The right-most address of the chain that is no proxy of ours (the left-most if all are), and its place from the
    right; what cannot be read ends the way. And the chain as it is sent to upstreams."""
    client: str | None = None
    place = 0
    for member in reversed(chain):
        place += 1
        address = _address(member)
        if address is None:
            break
        client = str(address)
        if not trust.trusts(client):
            break
    sent = (str(address) if (address := _address(member)) is not None else member for member in chain)
    return client, place, tuple(member for member in sent if member)


def _at(place: int, members: Sequence[str]) -> str:
    """The member at the client's place; the first of a list that is shorter, empty if there is none."""
    return members[-min(max(place, 1), len(members))] if members else ""


def _is_host(text: str) -> bool:
    """Whether a text names a host that could stand in a Host field, maybe with a port."""
    if len(text) > _HOST_LENGTH_MAX or (match := _HOST.fullmatch(text)) is None:
        return False
    address, port = match[1], match[2]
    return int(port or 1) <= _PORT_MAX and (address is None or (":" in address and _address(address) is not None))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text names, maybe in quotes, with a port or a zone; None if it names none."""
    if len(text) > _ADDRESS_LENGTH_MAX:
        return None
    text = text.strip('"')
    if (node := _NODE.fullmatch(text)) is not None:
        text = node[1] if node[1] is not None else node[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
