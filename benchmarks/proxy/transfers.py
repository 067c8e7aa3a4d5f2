"""The load of large bodies: ``transfers.py download|upload PORT PATH CONNECTIONS SECONDS BYTES``; prints JSON.

Prints a ``Transfers``. Each connection begins its next transfer when the last one is complete, until the time is over;
what was begun is completed, and the seconds are those until then. A broken connection is counted and opened again.
The load costs little beside any proxy: it discards responses and sends bodies inside the kernel.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import tempfile
import time
from typing import NamedTuple

PIECE = 1 << 20
PATIENCE_S = 20.0
"""How much longer than asked the load takes at most."""


class Transfers(NamedTuple):
    """What a run of the load has transferred."""

    seconds: float
    answers: int
    """Transfers with a response of 200 and of the right length."""
    failed: int
    bytes: int
    """Of the bodies of these."""


class Transfer:
    """One connection: what is left to send of its request and to receive of its response."""

    def __init__(self, sock: socket.socket, head: bytes, upload: int) -> None:
        self.sock = sock
        self._request = head
        self._upload = upload
        self.again()

    def again(self) -> None:
        self.unsent = self._request
        self.offset = 0
        self.to_send = self._upload
        self.head = b""
        self.to_receive = -1
        """-1 before the end of the response's head."""

    def send(self, source: int) -> None:
        """Send the request, its body from the file; raises BlockingIOError while it does not fit."""
        while self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        while self.to_send:
            sent = os.sendfile(self.sock.fileno(), source, self.offset, self.to_send)
            self.offset += sent
            self.to_send -= sent

    def receive(self, scratch: bytearray) -> bool:
        """Receive what is there; True at the end of the response. Raises OSError if it is no good one."""
        if self.to_receive > 0:
            got = self.sock.recv_into(scratch, min(self.to_receive, PIECE), socket.MSG_TRUNC)
            if not got:
                raise ConnectionResetError
            self.to_receive -= got
            return not self.to_receive
        piece = self.sock.recv(8192)
        if not piece:
            raise ConnectionResetError
        head, end, body = (self.head + piece).partition(b"\r\n\r\n")
        if not end:
            self.head = head
            return False
        self.to_receive = declared(head) - len(body)
        return not self.to_receive


def declared(head: bytes) -> int:
    """Return the Content-Length of a response head; raises OSError for another status or framing."""
    first, *lines = head.lower().split(b"\r\n")
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"content-length" and first.split()[1] == b"200":
            return int(value)
    raise OSError(f"the response is not what was asked for: {head!r}")


def run(upload: bool, port: int, path: str, connections: int, seconds: float, size: int) -> Transfers:
    head = f"{'POST' if upload else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if upload:
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
    epoll, scratch = select.epoll(), bytearray(PIECE)
    open_now: dict[int, Transfer] = {}
    answers = failed = 0
    began = now = time.perf_counter()

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        open_now[sock.fileno()] = Transfer(sock, (head + "\r\n").encode(), size if upload else 0)
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def close(number: int) -> None:
        epoll.unregister(number)
        open_now.pop(number).sock.close()

    with tempfile.TemporaryFile() as file:
        file.truncate(size if upload else 0)
        for _ in range(connections):
            connect()
        while open_now and now < began + seconds + PATIENCE_S:
            for number, events in epoll.poll(1.0):
                transfer = open_now[number]
                try:
                    if events & select.EPOLLOUT:
                        transfer.send(file.fileno())
                        epoll.modify(number, select.EPOLLIN)
                    if not events & ~select.EPOLLOUT or not transfer.receive(scratch):
                        continue
                    answers += 1
                except BlockingIOError:
                    continue
                except OSError as error:
                    failed += 1
                    print(error, file=sys.stderr)
                    close(number)
                    if time.perf_counter() < began + seconds:
                        time.sleep(0.01)
                        connect()
                    continue
                if time.perf_counter() < began + seconds:
                    transfer.again()
                    epoll.modify(number, select.EPOLLIN | select.EPOLLOUT)
                else:
                    close(number)
            now = time.perf_counter()
        return Transfers(now - began, answers, failed + len(open_now), answers * size)


if __name__ == "__main__":
    kind, port, path, connections, seconds, size = sys.argv[1:]
    print(json.dumps(run(kind == "upload", int(port), path, int(connections), float(seconds), int(size))))
