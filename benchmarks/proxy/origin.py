"""The upstream of ``make bench-proxy`` for streams and uploads.

``origin.py`` prints its port and serves until it is killed, in one epoll loop. The paths below any prefix:

- ``upload``: discards a body with a Content-Length inside the kernel, then responds with its length.
- ``slow``: a chunked response; its first piece goes out with the head, its last one ``SLOW_S`` later.
- ``idle``: server-sent events; one event at once, and no more.
- ``spread``: an event to each stream every ``EVERY_S``, the streams evenly apart from each other.
- ``together``: an event to all streams every ``EVERY_S``, one right after the other.
- ``socket``: a WebSocket that sends each frame back.

An event holds ``time.monotonic_ns()`` of just before it is sent, a clock that all processes of the machine share.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import re
import select
import socket
import sys
import time
from collections.abc import Callable

SLOW_S = 0.05
EVERY_S = 0.1
STREAMS = 100
"""How many streams ``spread`` is made for."""
PIECE = 1 << 20
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)
KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*(\S+)", re.IGNORECASE)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PADDING = b"x" * 64
FIRST, LAST = b"first", b"last."


def response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(media_type: bytes) -> bytes:
    """Return the head of a chunked response."""
    fields = b"Content-Type: %b\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\n" + fields % media_type


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def event() -> bytes:
    return chunk(b"data: %d %b\n\n" % (time.monotonic_ns(), PADDING))


def accepted(head: bytes) -> bytes:
    """Return the head that accepts a WebSocket (RFC 6455 section 4.2.2)."""
    key = KEY.search(head)
    if key is None:
        return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID, usedforsecurity=False).digest())
    fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
    return b"HTTP/1.1 101 Switching Protocols\r\n" + fields % accept


def echoes(data: bytes) -> tuple[bytes, bytes]:
    """Return the whole frames of at most 125 bytes without their masks, and the rest of the data."""
    out = []
    while len(data) >= 6 and len(data) >= 6 + (size := data[1] & 127):
        mask, payload = data[2:6], data[6 : 6 + size]
        out.append(bytes((data[0], size)))
        out.append(bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload)))
        data = data[6 + size :]
    return b"".join(out), data


class Peer:
    """One connection of a proxy."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.body = 0
        """Bytes of the upload that are still to come."""
        self.length = 0
        self.upgraded = False


class Origin:
    """The listening socket, the connections and the timers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._peers: dict[int, Peer] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._spread = 0
        self._together: list[Peer] = []
        self._scratch = bytearray(PIECE)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        while True:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for number, _ in self._epoll.poll(timeout):
                if number == self._listener.fileno():
                    self._accept()
                elif (peer := self._peers.get(number)) is not None:
                    self._receive(peer)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, action))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._peers[sock.fileno()] = Peer(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _close(self, peer: Peer) -> None:
        number = peer.sock.fileno()
        if number in self._peers:
            self._epoll.unregister(number)
            del self._peers[number]
            peer.sock.close()

    def _send(self, peer: Peer, data: bytes) -> None:
        """Send what fits any socket buffer; a peer that is gone or full is closed."""
        try:
            if peer.sock.fileno() < 0 or peer.sock.send(data) == len(data):
                return
        except OSError:
            pass
        self._close(peer)

    def _receive(self, peer: Peer) -> None:
        try:
            if peer.body:
                # MSG_TRUNC: the kernel discards the bytes without copying them, so that the proxy is what is measured.
                got = peer.sock.recv_into(self._scratch, min(peer.body, PIECE), socket.MSG_TRUNC)
                peer.body -= got
                if got and not peer.body:
                    self._send(peer, response(b"%d" % peer.length))
                if not got:
                    self._close(peer)
                return
            data = peer.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(peer)
            return
        peer.rest += data
        if peer.upgraded:
            out, peer.rest = echoes(peer.rest)
            if out:
                self._send(peer, out)
            return
        while not peer.body and b"\r\n\r\n" in peer.rest:
            head, _, peer.rest = peer.rest.partition(b"\r\n\r\n")
            self._respond(peer, head)

    def _respond(self, peer: Peer, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        name = target.rpartition(b"/")[2].decode()
        found = CONTENT_LENGTH.search(head)
        if name == "upload" and found is not None:
            peer.length = int(found[1])
            peer.body = max(0, peer.length - len(peer.rest))
            peer.rest = peer.rest[peer.length :]
            if EXPECT.search(head):
                self._send(peer, b"HTTP/1.1 100 Continue\r\n\r\n")
            if not peer.body:
                self._send(peer, response(b"%d" % peer.length))
        elif name == "slow":
            self._send(peer, chunked(b"text/plain") + chunk(FIRST))
            self._at(time.monotonic() + SLOW_S, lambda: self._send(peer, chunk(LAST) + b"0\r\n\r\n"))
        elif name in ("idle", "spread", "together"):
            self._send(peer, chunked(b"text/event-stream") + event())
            if name != "idle":
                self._begin(peer, name)
        elif name == "socket":
            self._send(peer, accepted(head))
            peer.upgraded = True
        else:
            self._send(peer, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _begin(self, peer: Peer, name: str) -> None:
        now = time.monotonic()
        if name == "spread":
            # Each stream at its own place of the period, whenever it was opened.
            self._spread = (self._spread + 1) % STREAMS
            period = now - now % EVERY_S + EVERY_S
            self._at(period + EVERY_S * self._spread / STREAMS, lambda: self._each(peer))
            return
        if not self._together:
            self._at(now + EVERY_S, self._all)
        self._together.append(peer)

    def _each(self, peer: Peer) -> None:
        self._send(peer, event())
        if peer.sock.fileno() >= 0:
            self._at(time.monotonic() + EVERY_S, lambda: self._each(peer))

    def _all(self) -> None:
        self._together = [peer for peer in self._together if peer.sock.fileno() >= 0]
        for peer in self._together:
            self._send(peer, event())
        if self._together:
            self._at(time.monotonic() + EVERY_S, self._all)


if __name__ == "__main__":
    sys.setswitchinterval(1.0)
    origin = Origin()
    print(origin.port, flush=True)
    origin.serve()
