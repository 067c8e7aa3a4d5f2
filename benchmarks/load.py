"""A closed-loop load generator: ``load.py`` reads lines ``PORT CONNECTIONS SECONDS`` and writes JSON for each.

Each connection sends its next request when the last response has come. Responses are hardly parsed, so that one core of
load keeps one core of any of the servers busy.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

REQUEST = b"GET /hello?name=world HTTP/1.1\r\nhost: 127.0.0.1:8000\r\nuser-agent: load\r\naccept: */*\r\n\r\n"
ENDINGS = (b"Hello, world!", b'Hello, world!"')
"""As text, and as JSON."""


def load(port: int, connections: int, seconds: float) -> list[float]:
    """Return the number of requests, their duration, and the latency's median and p99, in seconds."""
    epoll = select.epoll()
    peers: dict[int, socket.socket] = {}
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    try:
        for _ in range(connections):
            peer = socket.create_connection(("127.0.0.1", port))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[peer.fileno()] = peer
            epoll.register(peer.fileno(), select.EPOLLIN)
        began = time.perf_counter()
        for number, peer in peers.items():
            sent_at[number] = time.perf_counter()
            peer.send(REQUEST)
        until = began + seconds
        now = began
        while now < until:
            for number, _ in epoll.poll():
                answer = peers[number].recv(65536)
                if not answer:
                    raise SystemExit("the server closed a connection")
                if not answer.endswith(ENDINGS):
                    continue  # Some send the head and the body apart.
                now = time.perf_counter()
                latencies.append(now - sent_at[number])
                sent_at[number] = now
                peers[number].send(REQUEST)
        latencies.sort()
        count = len(latencies)
        return [count, now - began, latencies[count // 2], latencies[count * 99 // 100]]
    finally:
        epoll.close()
        for peer in peers.values():
            peer.close()


if __name__ == "__main__":
    for line in sys.stdin:
        port, connections, seconds = line.split()
        print(json.dumps(load(int(port), int(connections), float(seconds))), flush=True)
