"""The clients of streams: ``streams.py first|events|hold PORT PATH COUNT SECONDS``; prints JSON.

- ``first``: requests of a slow response on COUNT kept connections; prints a ``Latencies`` of the seconds from each
  request to the first byte of its body.
- ``events``: COUNT streams of server-sent events; prints a ``Latencies`` of the seconds from when an event left the
  upstream to when it is here. Events that left before all streams were open do not count.
- ``hold``: opens COUNT streams (WebSockets where the path ends in ``socket``) and waits until each has brought
  something; prints how many have, and holds these until its standard input ends.
"""

from __future__ import annotations

import json
import math
import re
import select
import socket
import sys
import time
from typing import NamedTuple

EVENT = re.compile(rb"data: (\d+) x+\n\n")
OPEN_S = 20.0
"""How long the streams may take to open at most."""
SETTLE_S = 0.3
"""How long all streams are open before events count: a proxy is busy with the opening."""
AT_ONCE = 50
"""Streams that are being opened at once."""
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\1\2\3\4"
HELLO = b"hello"
FRAME = b"\x81" + bytes((128 + len(HELLO),)) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(HELLO))
ECHO = b"\x81" + bytes((len(HELLO),)) + HELLO


class Latencies(NamedTuple):
    """Seconds, sorted, and what did not come."""

    seconds: float
    """How long was measured."""
    count: int
    failed: int
    p50: float | None
    p99: float | None
    most: float | None


def latencies(found: list[float], seconds: float, failed: int) -> Latencies:
    found.sort()
    if not found:
        return Latencies(seconds, 0, failed, None, None, None)
    count = len(found)
    return Latencies(seconds, count, failed, found[count // 2], found[min(count - 1, count * 99 // 100)], found[-1])


class Streams:
    """Connections to the proxy, all read by one loop."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._fields = f"Host: 127.0.0.1:{port}\r\nUser-Agent: bench\r\n"
        self._path = path
        self._epoll = select.epoll()
        self.socks: dict[int, socket.socket] = {}
        self.seen: dict[int, bytes] = {}
        """What a connection has brought and nobody has taken yet."""

    def open(self, fields: str = "") -> int:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.fileno()
        self.socks[number], self.seen[number] = sock, b""
        self._epoll.register(number, select.EPOLLIN)
        self.request(number, fields)
        return number

    def request(self, number: int, fields: str = "") -> None:
        self.socks[number].sendall(f"GET {self._path} HTTP/1.1\r\n{self._fields}{fields}\r\n".encode())

    def poll(self, timeout: float) -> list[tuple[int, float]]:
        """Receive what is there; return the connections that brought something, and when that was."""
        found = []
        for number, _ in self._epoll.poll(timeout):
            try:
                data = self.socks[number].recv(65536)
            except OSError:
                data = b""
            if data:
                found.append((number, time.monotonic()))
                self.seen[number] += data
            else:
                self.close(number)
        return found

    def close(self, number: int) -> None:
        self._epoll.unregister(number)
        self.socks.pop(number).close()


def first(port: int, path: str, count: int, seconds: float) -> Latencies:
    streams, found = Streams(port, path), []
    sent_at, first_seen = {}, set()
    began = now = time.monotonic()
    for _ in range(count):
        sent_at[streams.open()] = time.monotonic()
    while now < began + seconds and streams.socks:
        for number, when in streams.poll(0.5):
            data = streams.seen[number]
            if number not in first_seen and b"first" in data:
                first_seen.add(number)
                found.append(when - sent_at[number])
            if data.endswith(b"\r\n0\r\n\r\n"):
                streams.seen[number] = b""
                first_seen.discard(number)
                sent_at[number] = time.monotonic()
                streams.request(number)
        now = time.monotonic()
    return latencies(found, now - began, count - len(streams.socks))


def events(port: int, path: str, count: int, seconds: float) -> Latencies:
    streams, found = Streams(port, path), []
    waiting = {streams.open() for _ in range(count)}
    until = time.monotonic() + OPEN_S
    began = math.inf
    while (now := time.monotonic()) < until and streams.socks:
        for number, when in streams.poll(0.5):
            data = streams.seen[number]
            last = 0
            for match in EVENT.finditer(data):
                last = match.end()
                if number in waiting:
                    waiting.discard(number)
                elif (sent := int(match[1]) / 1e9) >= began:
                    found.append(when - sent)
            streams.seen[number] = data[last:]
        if not waiting and began == math.inf:
            began = now + SETTLE_S
            until = began + seconds
    return latencies(found, seconds, len(waiting) + count - len(streams.socks))


def hold(port: int, path: str, count: int, seconds: float) -> Streams:
    """Open the streams, some at a time, and return them; those that bring nothing in time are closed."""
    streams = Streams(port, path)
    upgraded = path.endswith("socket")
    fields = f"Sec-WebSocket-Key: {KEY.decode()}\r\nSec-WebSocket-Version: 13\r\n"
    fields += "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    opening: set[int] = set()
    opened = 0
    until = time.monotonic() + seconds
    while (opened < count or opening) and time.monotonic() < until:
        while opened < count and len(opening) < AT_ONCE:
            opening.add(streams.open(fields if upgraded else "Accept: text/event-stream\r\n"))
            opened += 1
        for number, _ in streams.poll(0.5):
            head, end, rest = streams.seen[number].partition(b"\r\n\r\n")
            if upgraded and end and not rest and head.startswith(b"HTTP/1.1 101"):
                streams.socks[number].sendall(FRAME)
            elif (ECHO in rest) if upgraded else EVENT.search(rest):
                opening.discard(number)
        opening &= streams.socks.keys()
    for number in opening:
        streams.close(number)
    return streams


if __name__ == "__main__":
    kind, port, path, count, seconds = sys.argv[1:]
    if kind == "hold":
        held = hold(int(port), path, int(count), float(seconds))
        print(len(held.socks), flush=True)
        sys.stdin.read()
    else:
        print(json.dumps((first if kind == "first" else events)(int(port), path, int(count), float(seconds))))
