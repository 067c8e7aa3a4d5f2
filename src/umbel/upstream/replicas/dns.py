"""Replicas from DNS: each address of a name is a replica, and the name is looked up again when its TTL has passed.

For URLs of the form ``dns+http://name:port``. Names are resolved by dnspython on trio, because the system's
``getaddrinfo`` gives no TTL. Environment variables and the hosts file are not read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import httpx
import trio
from msgspec.structs import replace as replace_origin
from trio_util import AsyncValue

from ...core.errors import UpstreamError
from ...policy.replicas.dns_ttl import RefreshSchedule
from ..background_tasks import BackgroundNursery, TaskOwner
from ..errors import AddressRefused, NameFailed, NameTimedOut
from .address import every_address_prohibited, is_prohibited
from .origin import Replica

PREFIX = "dns+"
FIRST_WAIT = 1.0
"""Seconds that entering waits for the first look-up, so that a failing name service cannot prevent a start."""
REPLICAS_MAX = 256
"""Bound on the addresses of one name that become replicas; further addresses are only counted."""


@dataclass(frozen=True, slots=True)
class DnsStatistics:
    """A snapshot of ``DnsReplicas``: the addresses of the name, and its look-ups."""

    name: str
    addresses: tuple[str, ...]
    """Addresses that are replicas now."""
    refused: int
    """Number of prohibited addresses in the last answers."""
    excess: int
    """Number of usable addresses in the last answers beyond REPLICAS_MAX."""
    lookups: int
    """Number of look-ups since the object was created; A and AAAA together are one."""
    failed_in_a_row: int
    """Number of look-ups in a row, up to the last one, that found no usable address or failed for A or for AAAA."""
    failure: str
    """Why the last look-up failed, in one sentence; empty if it did not fail."""


class DnsReplicas(TaskOwner):
    """A ``ReplicaSource``: the addresses (A and AAAA) of a name, from a ``dns+http://`` or ``dns+https://`` URL.

    The field Host and the TLS server name are those of the URL, unless the arguments name others. A dot at the end of
    the name makes it absolute for the look-up, and is removed elsewhere. Prohibited addresses
    (``address.is_prohibited``) are never replicas.

    The name is looked up again after the smallest TTL of its records, bounded by ``ttl_min`` and ``ttl_max``. A look-up
    that fails, or finds no usable address, leaves the set unchanged, and is repeated after a pause that doubles from 1
    second to ``ttl_max``. If one address family fails, the addresses of this family are left unchanged.

    An async context manager. Entering waits for the first look-up, at most FIRST_WAIT seconds. The same task may enter
    the source again. A failed look-up raises nothing.

    Args:
        url: ``dns+``, then a base URL whose host is a name.
        server_name, host: TLS server name and value of Host, as in ``Replica.parse``.
        public_only: refuse addresses that are not public.
        nameservers: addresses and ports of name servers; None: those of ``/etc/resolv.conf``, which is read again after
            a failure.
        timeout: seconds for one look-up, including repetitions of the query.
        ttl_min, ttl_max: seconds; bounds of the time between two look-ups.

    Raises:
        ValueError: the URL has another form; the message is one sentence.
    """

    def __init__(
        self,
        url: str,
        *,
        server_name: str | None = None,
        host: str | None = None,
        public_only: bool = False,
        nameservers: Sequence[tuple[str, int]] | None = None,
        timeout: float = 5.0,
        ttl_min: float = 1.0,
        ttl_max: float = 60.0,
    ) -> None:
        self._name, self._base = _parsed(url, server_name, host)
        super().__init__(BackgroundNursery(f"the look-up of {self._name}"))
        self._public_only = public_only
        self._nameservers = nameservers
        self._timeout = timeout
        self._refresh = RefreshSchedule(ttl_min, ttl_max)
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._families = (_Family("A"), _Family("AAAA"))
        self._looked = trio.Event()
        self._by_address: dict[str, Replica] = {}
        self._changes: AsyncValue = AsyncValue(())
        self._refused = self._excess = self._lookups = 0
        self._failure: tuple[type[NameFailed | NameTimedOut | AddressRefused], str] | None = None

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The present set: IPv4 before IPv6, each in numerical order."""
        current: tuple[Replica, ...] = self._changes.value
        return current

    @property
    def weights(self) -> tuple[int, ...]:
        """A weight of 1 per replica: address records have no weights."""
        return (1,) * len(self.replicas)

    @property
    def changes(self) -> AsyncValue:
        """Value to wait on for the next set; see ``ReplicaSource``."""
        return self._changes

    def missing(self) -> UpstreamError:
        """The error while the set is empty: of kind dns, or of kind connect if every address is prohibited."""
        kind, detail = self._failure or (NameFailed, f"{self._name}: the first look-up has not ended yet")
        return kind(detail)

    def statistics(self) -> DnsStatistics:
        """A snapshot."""
        return DnsStatistics(
            name=self._name,
            addresses=tuple(self._by_address),
            refused=self._refused,
            excess=self._excess,
            lookups=self._lookups,
            failed_in_a_row=self._refresh.failures,
            failure="" if self._failure is None else self._failure[1],
        )

    async def _begin(self) -> None:
        self._looked = trio.Event()
        self._nursery.start_soon(self._look_up_repeatedly)
        with trio.move_on_after(FIRST_WAIT):
            await self._looked.wait()

    async def _look_up_repeatedly(self) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                for family in self._families:
                    nursery.start_soon(self._look_up, family)
            self._lookups += 1
            pause = self._update_set()
            self._looked.set()
            await trio.sleep(pause)

    async def _look_up(self, family: _Family) -> None:
        """Look up one address family. Raises nothing but cancels: an error is kept as the family's failure."""
        try:
            # In addition to ``lifetime``, which dnspython measures by the wall clock, which may jump.
            with trio.fail_after(self._timeout):
                answer = await self._configured_resolver().resolve(
                    self._name,
                    family.record,
                    raise_on_no_answer=False,
                    lifetime=self._timeout,
                    search=True,
                    backend=dns.asyncbackend.get_backend("trio"),
                )
            family.found([row.address for row in answer], answer.chaining_result.minimum_ttl)
        except dns.resolver.NXDOMAIN:
            family.found([], None)
        except (trio.TooSlowError, dns.exception.Timeout):
            family.failed(NameTimedOut, f"{self._name}: no answer for {family.record} within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - hostile bytes are parsed here, and no answer may end the look-ups
            family.failed(NameFailed, f"{self._name}: {family.record}: {error or type(error).__name__}")

    def _configured_resolver(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=self._nameservers is None)
            if self._nameservers is not None:
                self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*each) for each in self._nameservers]
        return self._resolver

    def _update_set(self) -> float:
        """Update the set with the results of both families. Return the pause before the next look-up in seconds."""
        self._failure = next((family.failure for family in self._families if family.failure is not None), None)
        lifetime = min((family.lifetime for family in self._families if family.lifetime is not None), default=None)
        found = {address for family in self._families for address in family.addresses}
        allowed = sorted(
            (each for each in found if not is_prohibited(each, public_only=self._public_only)), key=_sort_key
        )
        self._refused = len(found) - len(allowed)
        self._excess = max(0, len(allowed) - REPLICAS_MAX)
        if allowed:
            self._update_replicas(allowed[:REPLICAS_MAX])
        elif found:
            reason = every_address_prohibited(public_only=self._public_only)
            self._failure = AddressRefused, f"{self._name}: {reason}"
        elif self._failure is None:
            self._failure = NameFailed, f"{self._name}: no address"
        if self._failure is None and lifetime is not None:
            return self._refresh.succeeded(lifetime)
        self._resolver = None
        return self._refresh.failed(lifetime if allowed else None)

    def _update_replicas(self, addresses: Iterable[str]) -> None:
        self._by_address = {each: self._by_address.get(each) or self._replica(each) for each in addresses}
        self._changes.value = tuple(self._by_address.values())

    def _replica(self, address: str) -> Replica:
        base = self._base
        sni = base.origin.sni or base.origin.host if base.origin.scheme == "https" else None
        return replace(
            base, name=f"{base.name} at {address}", origin=replace_origin(base.origin, host=address, sni=sni)
        )


class _Family:
    """Result of the look-ups of one address family of a name: A or AAAA."""

    def __init__(self, record: Literal["A", "AAAA"]) -> None:
        self.record = record
        self.addresses: tuple[str, ...] = ()
        """Addresses of the last look-up that succeeded."""
        self.lifetime: float | None = None
        """TTL in seconds; None after a failure, or if the answer has none."""
        self.failure: tuple[type[NameFailed | NameTimedOut], str] | None = None
        """Type and message of the last look-up's error; None if it succeeded."""

    def found(self, addresses: Iterable[str], lifetime: float | None) -> None:
        self.addresses, self.lifetime, self.failure = tuple(addresses), lifetime, None

    def failed(self, kind: type[NameFailed | NameTimedOut], detail: str) -> None:
        self.lifetime, self.failure = None, (kind, detail)


def _parsed(url: str, server_name: str | None, host: str | None) -> tuple[str, Replica]:
    """The name to look up, and the replica of the URL, from which the replica of each address is made."""
    text = url.removeprefix(PREFIX)
    if text == url or not text.startswith(("http://", "https://")):
        raise ValueError("replicas from DNS need a dns+http:// or dns+https:// URL")
    parts = httpx.URL(text)
    name = parts.raw_host.decode("ascii")
    bare = name.rstrip(".")
    if not bare or _is_address(bare):
        raise ValueError("replicas from DNS need a host name; write a URL with an IP address without dns+")
    text = text if bare == name else str(parts.copy_with(host=bare))
    return name, Replica.parse(text, server_name=server_name, host=host)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _sort_key(address: str) -> tuple[int, int]:
    ip = ipaddress.ip_address(address)
    return ip.version, int(ip)
