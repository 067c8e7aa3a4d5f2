"""A DNS server on loopback, over UDP and TCP, whose zones a test may change while it runs.

``async with nameserver({"users.test": Zone(a=["127.0.0.1"])}) as server``; ``server.at`` is the list of name servers
for a resolver.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio


@dataclass
class Zone:
    """The answers for one name. ``alias``: the target and TTL of a CNAME before the addresses."""

    a: list[str] = field(default_factory=list)
    aaaa: list[str] = field(default_factory=list)
    ttl: int = 30
    alias: tuple[str, int] | None = None
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    silent: frozenset[str] = frozenset()
    """The record types whose queries get no answer."""
    garbage: bool = False
    truncated: bool = False
    """Whether an answer over UDP is truncated (TC)."""
    dripping: bool = False
    """Whether an answer over TCP comes byte by byte, one each second."""


class NameServer:
    """A name server with these zones; the answer for any other name is NXDOMAIN."""

    def __init__(self, zones: dict[str, Zone]) -> None:
        self.zones = zones
        self.asked: list[tuple[str, str, float]] = []
        """The name, record type and time of each query."""
        self.port = 0

    @property
    def at(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.port)]

    def times(self, record: str = "A") -> list[float]:
        """The times of the queries for a record type."""
        return [time for _, asked, time in self.asked if asked == record]

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, record = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, record, trio.current_time()))
        zone = self.zones.get(name, Zone(rcode=dns.rcode.NXDOMAIN))
        if record in zone.silent:
            return None
        response = dns.message.make_response(query)
        response.set_rcode(zone.rcode)
        if zone.garbage:
            return response.to_wire()[:2] + b"\xff" * 20
        owner = question.name
        addresses = zone.a if record == "A" else zone.aaaa
        if zone.alias is not None:
            target, ttl = zone.alias
            response.answer.append(dns.rrset.from_text(owner, ttl, "IN", "CNAME", f"{target}."))
            owner = dns.name.from_text(target)
        if zone.truncated and udp:
            response.flags |= dns.flags.TC
        elif addresses:
            response.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", record, *addresses))
        return response.to_wire()

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            wire, peer = await sock.recvfrom(4096)
            if (answer := self.answer(wire, udp=True)) is not None:
                await sock.sendto(answer, peer)

    async def serve_tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            buffer = b""
            while data := await stream.receive_some():
                buffer += data
                if len(buffer) >= 2 and len(buffer) >= 2 + int.from_bytes(buffer[:2]):
                    answer = self.answer(buffer[2:], udp=False)
                    if answer is not None:
                        await self._send(stream, len(answer).to_bytes(2) + answer)
                    return

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        if not any(zone.dripping for zone in self.zones.values()):
            await stream.send_all(data)
            return
        with suppress(trio.BrokenResourceError):
            for byte in data:
                await trio.sleep(1)
                await stream.send_all(bytes([byte]))


@asynccontextmanager
async def nameserver(zones: dict[str, Zone]) -> AsyncIterator[NameServer]:
    server = NameServer(zones)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.port = listener.socket.getsockname()[1]
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", server.port))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_udp, sock)
            nursery.start_soon(trio.serve_listeners, server.serve_tcp, [listener])
            yield server
            nursery.cancel_scope.cancel(reason="the test is over")
