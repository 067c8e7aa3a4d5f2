"""Addresses and networks of peers: which peers a list of networks holds, and which of them a server admits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ..net.bounded_cache import BoundedCache

UNIX_PEER = "unix"
"""The word in a list of networks for any peer on a Unix socket. Such a peer has no address."""

_MAPPED = IPv6Network("::ffff:0:0/96")
"""The network of the IPv4 addresses that are mapped to IPv6 (RFC 4291 section 2.5.5.2)."""
_PEERS_MAX = 1024
_ADDRESS_LENGTH_MAX = 128
# An address with a port: IPv4, or IPv6 in brackets. The port may be hidden (RFC 7239 section 6.2).
_NODE = re.compile(r"\A(?:\[([^\]]*+)\]|([^:\[\]]*+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]++))?", re.ASCII)


class Networks:
    """A list of networks, and the peers that are in it.

    ``names`` are addresses, networks, and ``unix`` for peers on a Unix socket.

    Raises:
        ValueError: a name is neither an address, a network nor ``unix``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._unix = UNIX_PEER in names
        self._networks = tuple(parse_network(name) for name in names if name != UNIX_PEER)
        self.is_empty = not names
        """Whether no peer is in the list."""
        self._known: BoundedCache[str, bool] = BoundedCache(_PEERS_MAX, _ADDRESS_LENGTH_MAX)
        """Cache of ``include`` by address, because parsing an address is slow."""

    def include(self, peer: str | None) -> bool:
        """Whether ``peer`` (an address; None for a Unix socket) is in one of the networks.

        An IPv4 address that is mapped to IPv6 (``::ffff:10.0.0.1``) is the IPv4 address. A network of mapped addresses
        is the network of their IPv4 addresses.
        """
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            address = parse_address(peer)
            known = address is not None and any(address in network for network in self._networks)
            self._known.add(peer, known)
        return known


class Admission:
    """Which peers may make requests: those in ``allow`` (all, if ``allow`` is empty) that are not in ``deny``."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow, self._deny = Networks(allow), Networks(deny)
        self.is_for_all = self._allow.is_empty and self._deny.is_empty
        """Whether every peer may make requests."""

    def admits(self, peer: str | None) -> bool:
        """Whether ``peer`` (an address; None for a Unix socket) may make requests."""
        return not self._deny.include(peer) and (self._allow.is_empty or self._allow.include(peer))


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Parse an address or a network; bits after the prefix are dropped.

    A network of IPv4 addresses that are mapped to IPv6 becomes the IPv4 network, as ``parse_address`` does with an
    address. A larger network, such as ``::/0``, stays an IPv6 network and contains no IPv4 address.

    Raises:
        ValueError: ``text`` is neither.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = int(network.network_address) - int(_MAPPED.network_address)
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address, optionally in quotes, with a port or with a zone; None if ``text`` is none."""
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
