"""An open-loop load generator: ``path_fixed_rate.py PORT`` sends requests at a fixed rate, whatever the responses are.

Reads lines ``RATE SECONDS TARGET...``: requests at this rate, to the targets in turn; a target may repeat. Writes JSON
for each line: for each target the latencies of its responses in seconds, and the number of responses that were not
complete or not 200. A request uses a free connection or a new one, so that no request waits for another here.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GOOD = (b"HTTP/1.1 200", b"\r\numbel-completed: true\r\n")
DRAIN_S = 10.0


class RequestContext:
    """A connection with its present request."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.target = ""
        self.began = 0.0
        self._answer = b""

    def ask(self, target: str) -> None:
        self.target, self._answer = target, b""
        self.began = time.perf_counter()
        self.socket.send(f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: rate\r\n\r\n".encode())

    def take(self) -> bool | None:
        """Read; whether the answer was a good one, None while it is not there as a whole."""
        piece = self.socket.recv(65536)
        if not piece:
            raise SystemExit("the gateway closed a connection")
        self._answer += piece
        head, end, body = self._answer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        if not end or found is None or len(body) < int(found[1]):
            return None
        return head.startswith(GOOD[0]) and GOOD[1] in head + b"\r\n"


class Rate:
    """All connections to one gateway, which stay open between lines."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._all: dict[int, RequestContext] = {}
        self._free: list[RequestContext] = []

    def run(self, rate: float, seconds: float, targets: list[str]) -> dict[str, object]:
        latencies: dict[str, list[float]] = {target: [] for target in targets}
        failed = dict.fromkeys(targets, 0)
        count, sent = int(rate * seconds), 0
        began = time.perf_counter()
        last = began + seconds + DRAIN_S
        for number, _ in self._epoll.poll(0):
            self._drop(self._all[number])
        while sent < count or len(self._free) < len(self._all):
            now = time.perf_counter()
            if now > last:
                raise SystemExit("some requests were not answered")
            while sent < count and now >= began + sent / rate:
                self._free_one().ask(targets[sent % len(targets)])
                sent += 1
            due = began + sent / rate if sent < count else last
            for number, _ in self._epoll.poll(max(0.0, due - time.perf_counter())):
                exchange = self._all[number]
                if exchange in self._free:
                    self._drop(exchange)  # It was idle for long.
                    continue
                good = exchange.take()
                if good is not None:
                    latencies[exchange.target].append(time.perf_counter() - exchange.began)
                    failed[exchange.target] += not good
                    self._free.append(exchange)
        return {target: [latencies[target], failed[target]] for target in latencies}

    def _drop(self, exchange: RequestContext) -> None:
        self._free.remove(exchange)
        del self._all[exchange.socket.fileno()]
        self._epoll.unregister(exchange.socket.fileno())
        exchange.socket.close()

    def _free_one(self) -> RequestContext:
        if self._free:
            return self._free.pop()
        exchange = RequestContext(self._port)
        self._all[exchange.socket.fileno()] = exchange
        self._epoll.register(exchange.socket.fileno(), select.EPOLLIN)
        return exchange


def main() -> None:
    load = Rate(int(sys.argv[1]))
    for line in sys.stdin:
        rate, seconds, *targets = line.split()
        print(json.dumps(load.run(float(rate), float(seconds), targets)), flush=True)


if __name__ == "__main__":
    main()
