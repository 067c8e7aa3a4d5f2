"""Name resolution, check of addresses, and connect with Happy Eyeballs (RFC 8305).

Prohibited are link-local and multicast addresses; with ``public_only`` all addresses that are not public. The address
that is checked is the address that is connected to, so a second DNS answer cannot bypass the check (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import trio

from ..errors import AddressRefused, ConnectFailed, NameFailed, connect_failed

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

STAGGER = 0.25
"""Seconds between the connects to two addresses (RFC 8305 section 5, "Connection Attempt Delay")."""
ADDRESSES_MAX = 8
"""Bound on the addresses of one name that are tried."""

# Prefixes whose last 32 bits are an IPv4 address that a translator or the kernel would connect to.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "::ffff:0:0:0/96")))
# Local-use NAT64 (RFC 8215): the IPv4 address stands at the end, or around bits 64 to 71 (RFC 6052 section 2.2).
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class Address(NamedTuple):
    """One IP address with its port, or the path of a Unix socket, as ``socket.connect`` takes it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | str

    def __str__(self) -> str:
        return self.sockaddr if isinstance(self.sockaddr, str) else f"{self.sockaddr[0]} port {self.sockaddr[1]}"


def is_prohibited(text: str, *, public_only: bool) -> bool:
    """Whether the numeric address ``text``, or an IPv4 address that is embedded in it, is prohibited.

    Args:
        public_only: whether addresses that are not public are prohibited too.

    Raises:
        ValueError: ``text`` is no IP address.
    """
    ip = ipaddress.ip_address(text)
    return any(
        meaning.is_link_local or meaning.is_multicast or (public_only and not _is_public(meaning))
        for meaning in _embedded_addresses(ip)
    )


def every_address_prohibited(*, public_only: bool) -> str:
    """The message that all addresses of a name are prohibited, with the reason."""
    kinds = "link-local, multicast or (public_only) not public" if public_only else "link-local or multicast"
    return f"every address of this name is {kinds}, and therefore refused"


def _is_public(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _LOCAL_NAT64 or ip in _SITE_LOCAL:
            return False
        if ip.ipv4_mapped is not None:
            return True  # The embedded IPv4 address is checked by itself; Python's versions differ for the mapped one.
    return ip.is_global


def _embedded_addresses(ip: IpAddress) -> Iterator[IpAddress]:
    """The address itself, and every IPv4 address that may be embedded in it."""
    yield ip
    if not isinstance(ip, ipaddress.IPv6Address):
        return
    number = int(ip)
    last = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    # ISATAP (RFC 5214): the interface identifier 0000:5efe or 0200:5efe, then the address.
    if any(ip in network for network in _EMBEDDING) or (number >> 32) & 0xFDFFFFFF == 0x00005EFE:
        yield last
    if ip in _LOCAL_NAT64:
        yield last
        yield ipaddress.IPv4Address(((number >> 64) & 0xFFFF) << 16 | (number >> 40) & 0xFFFF)
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo


async def resolve(host: str, port: int, *, public_only: bool) -> list[Address]:
    """Resolve ``host`` with the system's resolver.

    Args:
        public_only: whether addresses that are not public are prohibited too.

    Returns:
        the addresses that are not prohibited, IPv4 and IPv6 in turn (RFC 8305 section 4), at most ADDRESSES_MAX.

    Raises:
        NameFailed: the look-up failed, or the name has no address.
        AddressRefused: all addresses of the name are prohibited.
    """
    try:
        rows = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NameFailed(f"{host}: {getattr(error, 'strerror', None) or error}") from error
    allowed: dict[Address, None] = {}
    for family, _, _, _, sockaddr in rows:
        if family in (socket.AF_INET, socket.AF_INET6) and not is_prohibited(str(sockaddr[0]), public_only=public_only):
            # The type of ``sockaddr`` covers more families than these two.
            allowed[Address(family, sockaddr)] = None  # type: ignore[arg-type]
    if not rows:
        raise NameFailed(f"{host}: no address")
    if not allowed:
        raise AddressRefused(f"{host}: {every_address_prohibited(public_only=public_only)}")
    first = next(iter(allowed)).family
    same = [address for address in allowed if address.family == first]
    other = [address for address in allowed if address.family != first]
    mixed = chain.from_iterable(zip_longest(same, other))
    return [address for address in mixed if address is not None][:ADDRESSES_MAX]


async def connect(addresses: Sequence[Address]) -> trio.SocketStream:
    """Connect to the first of ``addresses`` that accepts.

    Each further connect begins ``STAGGER`` seconds after the previous one, or as soon as the previous one has failed.

    All other sockets are closed when this function returns, raises or is cancelled.

    Raises:
        ConnectFailed: every connect failed; the message has all errors, the cause is the last one.
    """
    if len(addresses) == 1:
        return await _connect_one(addresses[0])
    winners: list[trio.SocketStream] = []
    errors: list[ConnectFailed] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            winners.append(await _connect_one(address))
        except ConnectFailed as error:
            errors.append(error)
            failed.set()
        else:
            nursery.cancel_scope.cancel(reason="another address was connected to")

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(STAGGER):
                    await failed.wait()
    except BaseException:
        _close(winners)
        raise
    if not winners:
        last = errors[-1]
        raise ConnectFailed("; ".join(map(str, errors)), proxy_error=last.proxy_error) from last
    _close(winners[1:])
    return winners[0]


async def _connect_one(address: Address) -> trio.SocketStream:
    try:
        sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:
        raise connect_failed(error, str(address)) from error
    try:
        await sock.connect(address.sockaddr)
        return trio.SocketStream(sock)
    except OSError as error:
        sock.close()
        raise connect_failed(error, str(address)) from error
    except BaseException:
        sock.close()
        raise


def _close(streams: Sequence[trio.SocketStream]) -> None:
    for stream in streams:
        stream.socket.close()
