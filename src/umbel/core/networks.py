"""Addresses and networks of peers: which peers a list of networks holds, and which of them a server admits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ..net.bounded_cache import BoundedCache

UNIX_PEER = "unix"
"""The word in a list of networks for any peer on a Unix socket. Such a peer has no address."""

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
        self._networks = tuple(ip_network(name, strict=False) for name in names if name != UNIX_PEER)
        self.is_empty = not names
        """Whether no peer is in the list."""
        self._known: BoundedCache[str, bool] = BoundedCache(_PEERS_MAX, _ADDRESS_LENGTH_MAX)
        """Cache of ``include`` by address, because parsing an address is slow."""

    def include(self, peer: str | None) -> bool:
        """Whether ``peer`` (an address; None for a Unix socket) is in one of the networks.

        An IPv4 address that is mapped to IPv6 (``::ffff:10.0.0.1``) is the IPv4 address.
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
