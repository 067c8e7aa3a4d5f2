"""A closed-loop load generator for a gateway: lines ``PORT TARGET CONNECTIONS SECONDS [KIND]`` in, JSON out.

Each connection sends its next request when the last response has come. Each response must be complete: status 200, all
of its bytes, and ``umbel-completed: true``. A connection that the server ends with a response, as after a thousand
requests, is replaced by a new one. KIND is ``tls`` (over TLS), ``gzip`` (the response must be compressed) or
``proxied`` (the response of a proxy route: without ``umbel-completed``).
"""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import sys
import time

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
COMPLETE = b"\r\numbel-completed: true\r\n"
GZIP = b"\r\ncontent-encoding: gzip\r\n"
MARKS = {"": (COMPLETE,), "tls": (COMPLETE,), "gzip": (COMPLETE, GZIP), "proxied": ()}
"""What the head of each response must contain, by kind."""


class Peer:
    """One client with a connection, and the received part of its present response."""

    def __init__(self, port: int, request: bytes, kind: str, context: ssl.SSLContext) -> None:
        self._port, self._request, self._kind, self._context = port, request, kind, context
        self._marks = MARKS[kind]
        self._rest = b""
        self.socket = self._connected()
        self.is_last = False
        """Whether the server ends the connection with the response that is there."""

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(connection) if self._kind == "tls" else connection

    def connect_again(self) -> None:
        self.socket.close()
        self.socket, self.is_last = self._connected(), False

    def ask(self) -> None:
        self.sent_at = time.perf_counter()
        self.socket.send(self._request)

    def answered(self) -> bool:
        """Read; whether the answer is there as a whole."""
        # Over TLS too, nothing is left behind a read that epoll would not report: a record is smaller.
        piece = self.socket.recv(65536)
        if not piece:
            raise SystemExit("the gateway closed a connection")
        answer = self._rest + piece if self._rest else piece
        end = answer.find(b"\r\n\r\n") + 4
        found = LENGTH.search(answer, 0, end) if end >= 4 else None
        if found is None or len(answer) < end + int(found[1]):
            self._rest = answer
            return False
        self._rest = b""
        if not answer.startswith(b"HTTP/1.1 200") or any(answer.find(mark, 0, end) < 0 for mark in self._marks):
            raise SystemExit(f"no whole answer: {answer[:400]!r}")
        self.is_last = CLOSE.search(answer, 0, end) is not None
        return True


def load(port: int, target: str, connections: int, seconds: float, kind: str = "") -> list[float]:
    """Return the number of requests, their duration, and the latency's median and p99, in seconds."""
    coding = "accept-encoding: gzip\r\n" if kind == "gzip" else ""
    fields = f"host: 127.0.0.1:{port}\r\nuser-agent: load\r\naccept: */*\r\n{coding}"
    request = f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # The benchmark has made the certificate.
    peers = {peer.socket.fileno(): peer for peer in (Peer(port, request, kind, context) for _ in range(connections))}
    latencies: list[float] = []
    with select.epoll() as epoll:
        for number in peers:
            epoll.register(number, select.EPOLLIN)
        now = began = time.perf_counter()
        for peer in peers.values():
            peer.ask()
        while now < began + seconds:
            for number, _ in epoll.poll():
                peer = peers[number]
                if peer.answered():
                    now = time.perf_counter()
                    latencies.append(now - peer.sent_at)
                    if peer.is_last:
                        del peers[number]  # Closing a socket takes it out of the epoll.
                        peer.connect_again()
                        peers[peer.socket.fileno()] = peer
                        epoll.register(peer.socket.fileno(), select.EPOLLIN)
                    peer.ask()
    _finish(peers)
    latencies.sort()
    count = len(latencies)
    return [count, now - began, latencies[count // 2], latencies[count * 99 // 100]]


def _finish(peers: dict[int, Peer]) -> None:
    """Receive the last responses without counting them, so that no request is cut."""
    for peer in peers.values():
        while not peer.answered():
            pass
        peer.socket.close()


if __name__ == "__main__":
    for line in sys.stdin:
        port, target, connections, seconds, *kind = line.split()
        print(json.dumps(load(int(port), target, int(connections), float(seconds), *kind)), flush=True)
