"""A closed-loop load generator: ``burst_load.py PORT PATH CONNECTIONS SECONDS POST PATHS FIELDS``.

Prints a ``wrk.Load`` as JSON. POST, PATHS and FIELDS are those of ``wrk.load``.

One epoll loop. Each connection sends its next request when its response is complete, by its length or its last chunk.
Requests are GETs, or POSTs with a body of POST bytes if that is not 0. Broken connections are opened again and counted.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CLOSING = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
PAUSE_S = 0.01


def whole(answer: bytes) -> bool:
    """Whether the response is complete."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    length = LENGTH.search(head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


class BurstLoad:
    """The connections, and their counts of responses, errors and latencies."""

    def __init__(self, port: int, path: str, post: int, paths: int = 0, fields: int = 2) -> None:
        self._port = port
        self._path = path
        self._paths = paths
        self._number = 0
        length = f"Content-Length: {post}\r\n" if post else ""
        head = f"{'POST' if post else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n"
        self._request = head.encode() + b"x" * post
        # Host and X-Number are two.
        further = "".join(f"X-Field-{field}: a value of ordinary length {field}\r\n" for field in range(3, fields + 1))
        self._fields = f"Host: 127.0.0.1:{port}\r\n{further}"
        self._epoll = select.epoll()
        self._peers: dict[int, socket.socket] = {}
        self._sent_at: dict[int, float] = {}
        self._answers: dict[int, bytes] = {}
        self.latencies: list[float] = []
        self.bad = 0
        self.failed = 0

    def connect(self) -> None:
        """Open one more connection and send its first request."""
        try:
            peer = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            self.failed += 1
            time.sleep(PAUSE_S)
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[peer.fileno()] = peer
        self._epoll.register(peer.fileno(), select.EPOLLIN)
        self._send(peer.fileno())

    def run(self, connections: int, seconds: float) -> list[float | int | None]:
        began = time.perf_counter()
        while (left := began + seconds - time.perf_counter()) > 0:
            while len(self._peers) < connections and time.perf_counter() < began + seconds:
                self.connect()
            for number, _ in self._epoll.poll(left):
                self._receive(number)
        took = time.perf_counter() - began
        found = sorted(self.latencies)
        count = len(found)
        p50, p99 = (found[count // 2], found[count * 99 // 100]) if found else (None, None)
        return [took, count, self.bad, self.failed, p50, p99]

    def request(self) -> bytes:
        """The next request: always the same, or a numbered one where there are paths to go round."""
        if not self._paths:
            return self._request
        number = self._number = self._number + 1
        line = f"GET {self._path}{number % self._paths}/{number} HTTP/1.1\r\n"
        return f"{line}{self._fields}X-Number: {number}\r\n\r\n".encode()

    def _send(self, number: int) -> None:
        self._answers[number] = b""
        self._sent_at[number] = time.perf_counter()
        try:
            self._peers[number].send(self.request())
        except OSError:
            self._broken(number)

    def _receive(self, number: int) -> None:
        try:
            piece = self._peers[number].recv(262_144)
        except OSError:
            piece = b""
        if not piece:
            self._broken(number)
            return
        answer = self._answers[number] = self._answers[number] + piece
        if not whole(answer):
            return
        self.latencies.append(time.perf_counter() - self._sent_at[number])
        self.bad += answer[9:10] not in (b"2", b"3")
        if CLOSING.search(answer.partition(b"\r\n\r\n")[0]):
            self._close(number)
        else:
            self._send(number)

    def _broken(self, number: int) -> None:
        self.failed += 1
        self._close(number)

    def _close(self, number: int) -> None:
        self._epoll.unregister(number)
        self._peers.pop(number).close()


if __name__ == "__main__":
    port, path, connections, seconds, *numbers = sys.argv[1:]
    print(json.dumps(BurstLoad(int(port), path, *map(int, numbers)).run(int(connections), float(seconds))))
