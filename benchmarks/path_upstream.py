"""The upstreams of ``path.py``: ``path_upstream.py DELAY...``, one port each; a DELAY is milliseconds or ``hold``.

Prints its ports in one line. A response states when its request came and when it was sent, by the clock that all
processes share (CLOCK_MONOTONIC), so that a benchmark can subtract the time of the upstream. Lines of standard input
change a port, and each is acknowledged by a number: ``delay INDEX DELAY``, ``close INDEX`` (connections are refused),
``open INDEX`` (at the same port), ``held INDEX`` (the number of waiting requests), ``release INDEX`` (respond to them).
With ``exact`` as first argument it polls without a pause before a response is due.
"""

from __future__ import annotations

import heapq
import select
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

END = b"\r\n\r\n"
SPIN_S = 0.0015
HEAD = b"HTTP/1.1 200 OK\r\nserver: stub\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Connection:
    """A connection of the gateway, with at most one request."""

    def __init__(self, sock: socket.socket, port: Port) -> None:
        self.socket = sock
        self.port = port
        self.received = 0.0
        self._rest = b""

    def reads_request(self) -> bool:
        """Read; whether a request is there as a whole."""
        try:
            piece = self.socket.recv(65536)
        except ConnectionError:
            piece = b""
        if not piece:
            self.port.forget(self)
            return False
        self.received = time.monotonic()
        self._rest += piece
        if not self._rest.endswith(END):
            return False
        self._rest = b""
        return True

    def answer(self) -> None:
        if self.socket.fileno() < 0:
            return
        body = b'{"received":%.6f,"answered":%.6f,"name":"Ada Lovelace","open":true,"total":"12.50","currency":"EUR"}'
        text = body % (self.received, time.monotonic())
        try:
            self.socket.send(HEAD % len(text) + text)
        except ConnectionError:
            self.port.forget(self)


class Port:
    """One upstream, or one replica of it."""

    def __init__(self, stub: Stub, delay: str) -> None:
        self._stub = stub
        self._connections: set[Connection] = set()
        self._listener: socket.socket | None = None
        self.number = 0
        self.held: dict[Connection, None] = {}
        self.delay: float | None = None
        self.set_delay(delay)
        self.open()

    def set_delay(self, delay: str) -> None:
        self.delay = None if delay == "hold" else float(delay) / 1000

    def open(self) -> None:
        listener = self._listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.number))
        listener.listen(4096)
        listener.setblocking(False)
        self.number = listener.getsockname()[1]
        self._stub.watch(listener, self._accept)

    def close(self) -> None:
        """Refuse connections from now on, and reset those that are there."""
        if self._listener is not None:
            self._stub.forget(self._listener)
            self._listener = None
        for connection in tuple(self._connections):
            self.forget(connection)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.held.pop(connection, None)
        self._stub.forget(connection.socket)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            connection = Connection(sock, self)
            self._connections.add(connection)
            self._stub.watch(sock, partial(self._read, connection))

    def _read(self, connection: Connection) -> None:
        if not connection.reads_request():
            return
        if self.delay is None:
            self.held[connection] = None
        elif self.delay:
            self._stub.at(connection.received + self.delay, connection.answer)
        else:
            connection.answer()

    def release(self) -> int:
        """Answer all that wait."""
        held, self.held = self.held, {}
        for connection in held:
            connection.answer()
        return len(held)


class Stub:
    """The event loop of all ports."""

    def __init__(self, delays: list[str], *, exact: bool) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self._spin = SPIN_S if exact else 0.0
        self.ports = [Port(self, delay) for delay in delays]

    def watch(self, sock: socket.socket, call: Callable[[], None]) -> None:
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def forget(self, sock: socket.socket) -> None:
        if self._calls.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
            sock.close()

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._due, (when, self._made, call))

    def run(self) -> None:
        """Serve until standard input ends."""
        commands = sys.stdin.buffer.raw  # type: ignore[attr-defined]  # a file's own, unbuffered, as epoll sees it
        self._epoll.register(commands.fileno(), select.EPOLLIN)
        while True:
            due = self._due
            wait = -1.0 if not due else max(0.0, due[0][0] - time.monotonic() - self._spin)
            for number, _ in self._epoll.poll(wait):
                if number == commands.fileno():
                    lines = commands.read(65536)
                    if not lines:
                        return
                    for line in lines.decode().splitlines():
                        print(self._obey(*line.split()), flush=True)
                elif (call := self._calls.get(number)) is not None:
                    call()
            while due and due[0][0] <= time.monotonic():
                heapq.heappop(due)[2]()

    def _obey(self, word: str, index: str, *more: str) -> int:
        port = self.ports[int(index)]
        if word == "delay":
            port.set_delay(*more)
        elif word == "close":
            port.close()
        elif word == "open":
            port.open()
        elif word == "release":
            return port.release()
        return len(port.held)


def main() -> None:
    arguments = sys.argv[1:]
    exact = arguments[:1] == ["exact"]
    stub = Stub(arguments[1:] if exact else arguments, exact=exact)
    print(*(port.number for port in stub.ports), flush=True)
    stub.run()


if __name__ == "__main__":
    main()
