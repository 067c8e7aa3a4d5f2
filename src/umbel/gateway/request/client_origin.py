"""Client origin: the address, scheme and host of the client, and the fields that report them to upstreams.

``X-Forwarded-*`` and ``Forwarded`` are believed only if the peer is one of ``[server] trusted_proxies``. From any other
peer they are removed before a view, a plan or a hook can see them.

Theory
------
Each proxy appends the address of its own peer at the right end of ``X-Forwarded-For``. So the list is read from the
right for as long as its members are trusted proxies. The first member that is not trusted is the client; members left
of it are claims of the client and are ignored. If all members are trusted, the left-most one is the client.

``X-Forwarded-Proto`` and ``X-Forwarded-Host`` are lists too. The client's position in ``X-Forwarded-For``, counted from
the right, is its position in these lists. If a list is shorter than that, it was written once and forwarded unchanged,
and its first member counts.

If a list is longer than ``X-Forwarded-For``, proxies have appended to it without an address. For hosts the position is
kept: absolute links are made of the host, and a client must not choose the host in the links of another client. For
schemes the first member counts: the last proxy often uses http, and a client that lies about its own scheme harms only
itself.

``Forwarded`` is read if none of these three fields is present. A malformed member ends it, with all members left of it:
the client may have written them, and the members right of it are those of the proxies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from ...core.call import FieldBlock, block_of
from ...core.http.host import is_host
from ...core.http.syntax import TOKEN_CHARS
from ...core.model import Trace
from ...core.networks import Networks, parse_address
from ...net.bounded_cache import BoundedCache
from . import trace_ids
from .request_fields import Field, RequestFields, read_fields

_VIA_LENGTH_MAX = 1024
_SHORT = 256
"""Maximum characters of a value in the caches of fields."""
_HOPS_MAX = 64
"""Maximum number of members of a list that are read, from the right."""
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# A pair of Forwarded (RFC 7239 section 4). A value without quotes may also hold characters that no token has, such as
# the colon of a port.
_PAIR = re.compile(rf"""\A([{TOKEN_CHARS}]++)=(?:"((?:[^"\\]|\\.)*+)"|([^ \t",;=\\]*+))\Z""", re.ASCII | re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NODE = re.compile(r"[A-Za-z0-9._:\[\]-]*", re.ASCII)
"""Characters of an address with a port, or of a hidden name (RFC 7239 section 6)."""


class ClientOrigin(msgspec.Struct, frozen=True):
    """Origin of a request: client, peer, scheme, host and fields."""

    client: str
    """The client's address: the nearest address that is no trusted proxy. Empty on a Unix socket without fields."""
    trusted: bool
    """Whether the peer is a trusted proxy."""
    fields: RequestFields
    """The request's fields, without ``X-Forwarded-*`` and ``Forwarded`` of an untrusted peer."""
    peer: str | None
    """The address of the connection's other end; None on a Unix socket."""
    http_version: str
    scheme: str
    """The scheme of the client: ``http`` or ``https``."""
    host: str | None
    """The host that the client requested; None if no field names one."""
    hops: tuple[str, ...] = ()
    """The members of the inbound X-Forwarded-For to forward: addresses without ports, other members unchanged."""
    misreports_host: bool = False
    """Whether the trusted proxy reports a malformed host. ``host`` is then that of Host."""

    @property
    def headers(self) -> Sequence[Field]:
        """The fields as pairs, without ``X-Forwarded-*`` and ``Forwarded`` of an untrusted peer."""
        return self.fields.kept

    def claimed(self, name: str) -> str | None:
        """The value of an end-to-end field if the peer is trusted; else None."""
        return self.fields.end_to_end.get(name) if self.trusted else None

    def identify(self, bound: str | None = None) -> tuple[str, Trace]:
        """The request's id and trace. The id of X-Request-Id is used only from a trusted peer.

        ``bound``: which new traces are sampled, as in ``trace_ids.trace``.
        """
        if not self.trusted and not self.fields.names_trace:
            return trace_ids.new_identity(bound)
        get = self.fields.end_to_end.get
        return trace_ids.identify(self.claimed("x-request-id"), get("traceparent"), get("tracestate"), bound)

    def via(self) -> FieldBlock:
        """The field Via for upstreams (RFC 9110 section 7.6.3)."""
        key = (self.fields.via, self.http_version)
        try:
            return _vias.entries[key]
        except KeyError:
            return _via(*key)

    def forwarded_for(self) -> FieldBlock:
        """``X-Forwarded-For``, ``-Proto`` and ``-Host`` for upstreams. They continue the lists of a trusted peer only.

        They are the gateway's own fields, so the client's Connection cannot remove them.
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
        """A copy of an ASGI scope with the client's scheme, host and address in place of those of the proxy.

        A framework then makes absolute URLs that the client can use.
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


# Caches of the fields for upstreams, because clients repeat their values.
_vias: BoundedCache[tuple[str, str], FieldBlock] = BoundedCache(256, _SHORT, size_of=lambda key: len(key[0]))
_origins: BoundedCache[tuple[str, str, str], FieldBlock] = BoundedCache(
    1024, _SHORT, size_of=lambda key: max(len(key[0]), len(key[2]))
)


def _via(before: str, version: str) -> FieldBlock:
    own = f"{version} umbel"
    # A Via that is longer than the limit is not forwarded, so that a client cannot make the gateway's requests large.
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
    trust: Networks,
    http_version: str = "1.1",
    scheme: str = "http",
) -> ClientOrigin:
    """Determine the origin of a request from its peer and its fields. Never raises: malformed members are ignored.

    Args:
        peer: the address of the connection's other end; None on a Unix socket.
        headers: the header fields of the request.
        trust: the peers whose claims are believed.
        http_version: the version of HTTP, for the field Via.
        scheme: the scheme of the connection, ``http`` or ``https``.
    """
    trusted = not trust.is_empty and trust.include(peer)
    fields = read_fields(headers, believed=trusted)
    if not trusted:
        return ClientOrigin(peer or "", False, fields, peer, http_version, scheme, fields.get("host"))
    addresses, schemes, hosts = _claims(fields)
    client, place, hops = _follow(addresses, trust)
    said = next(filter(None, schemes), "") if len(schemes) > len(addresses) else _at(place, schemes)
    host = _at(place, hosts)
    misreported = bool(host) and not is_host(host)
    if misreported or not host:
        host = fields.get("host", "")
    scheme = _SCHEMES.get(said.lower(), scheme)
    return ClientOrigin(client or peer or "", True, fields, peer, http_version, scheme, host or None, hops, misreported)


def origin_in(scope: Mapping[str, Any], trust: Networks) -> ClientOrigin:
    """Determine the origin of the request or WebSocket of an ASGI scope."""
    client = scope.get("client")
    return origin_of(
        client[0] if client else None,
        scope["headers"],
        trust,
        http_version=scope.get("http_version", "1.1"),
        scheme=_SCHEMES.get(scope["scheme"], "http"),
    )


def _claims(fields: RequestFields) -> tuple[list[str], list[str], list[str]]:
    """The lists of addresses, schemes and hosts from the fields of a trusted peer, the nearest hop last."""
    said = [fields.get(f"x-forwarded-{name}") for name in ("for", "proto", "host")]
    if not any(said) and (forwarded := fields.get("forwarded")):
        return _read_forwarded(forwarded)
    addresses, schemes, hosts = (_members(value) if value else [] for value in said)
    return addresses, schemes, hosts


def _members(value: str) -> list[str]:
    return [member.strip(" \t") for member in value.rsplit(",", _HOPS_MAX)[-_HOPS_MAX:]]


def _read_forwarded(value: str) -> tuple[list[str], list[str], list[str]]:
    """The lists of addresses, schemes and hosts of Forwarded (RFC 7239), without a malformed member and all before it.

    The nearest proxy has written the last member, so whatever stands before it cannot change how it is read.
    """
    elements: list[dict[str, str]] = []
    for member in islice(_split_from_the_right(value, ","), _HOPS_MAX):
        element = _read_element(member)
        if element is None:
            break
        if element:
            elements.append(element)
    elements.reverse()
    addresses, schemes, hosts = ([element.get(name, "") for element in elements] for name in ("for", "proto", "host"))
    return addresses, schemes, hosts


def _split_from_the_right(value: str, separator: str) -> Iterator[str]:
    """Yield the parts of ``value``, the last first. A separator in a quoted string separates nothing.

    A quote without an opening one ends the iteration; its part is left out, with all before it.
    """
    end = at = len(value)
    cut = value.rfind(separator)
    while True:
        quote = value.rfind('"', cut + 1, at)
        if quote < 0:
            yield value[cut + 1 : end].strip(" \t")
            if cut < 0:
                return
            end = at = cut
        else:
            at = _opening_quote(value, quote)
            if at < 0:
                return
        if cut >= at:  # In the quoted string, or at the end of the part that was yielded.
            cut = value.rfind(separator, 0, at)


def _opening_quote(value: str, closing: int) -> int:
    """The position of the quote that opens the quoted string that ends at ``closing``; -1 if there is none."""
    at = closing
    while (at := value.rfind('"', 0, at)) >= 0:
        before = at
        while before and value[before - 1] == "\\":
            before -= 1
        if (at - before) % 2 == 0:
            break
    return at


def _read_element(member: str) -> dict[str, str] | None:
    """The parameters of a member of Forwarded by name in lower case; None if it is malformed or repeats one."""
    element: dict[str, str] = {}
    for text in filter(None, _split_from_the_right(member, ";")):
        pair = _PAIR.match(text)
        if pair is None or (name := pair[1].lower()) in element:
            return None
        element[name] = pair[3] if pair[2] is None else _QUOTED_PAIR.sub(r"\1", pair[2])
    return element if _NODE.fullmatch(element.get("for", "")) else None


def _follow(chain: Sequence[str], trust: Networks) -> tuple[str | None, int, tuple[str, ...]]:
    """Follow a list of addresses from the right to the first that is not trusted (the left-most if all are trusted).

    A member that is no address ends the walk.

    Returns:
        The client's address, or None; its position from the right; the list for upstreams.
    """
    client: str | None = None
    place = 0
    for member in reversed(chain):
        place += 1
        address = parse_address(member)
        if address is None:
            break
        client = str(address)
        if not trust.include(client):
            break
    sent = (str(address) if (address := parse_address(member)) is not None else member for member in chain)
    return client, place, tuple(member for member in sent if member)


def _at(place: int, members: Sequence[str]) -> str:
    """The member at the position ``place`` from the right; the first member of a shorter list; empty if none."""
    return members[-min(max(place, 1), len(members))] if members else ""
