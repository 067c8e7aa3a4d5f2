"""A composition gateway in plain trio as a peer of ``gateways.py``: the least code around a request.

A task per client, one epoll for all upstream connections, JSON merged with msgspec, one deadline per request, and a
line per request that a thread appends in batches. No routes but ``/nK``, no policies, no limits, no TLS, no chunked
bodies. It shows which part of Umbel's cost is that of trio and Python. UPSTREAM, PORT and LOG are environment
variables.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_readable, wait_task_rescheduled

DEADLINE_S = 2.0
FLUSH_S = 0.25
RECEIVE_MAX = 64 * 1024
HEAD_MAX = 16 * 1024
HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*+\r\n(?:[^\r\n]++\r\n)*+\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)
TARGET = re.compile(rb"GET /n([0-9]{1,2}) HTTP/1\.1\r\n")

decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


class Failed(Exception):  # noqa: N818 - it ends one request
    """The upstream gave no usable response."""


class Log:
    """A log whose lines a thread appends to a file in batches."""

    def __init__(self, path: str) -> None:
        self.lines: list[bytes] = []
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - open for as long as the process
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        while True:
            time.sleep(FLUSH_S)
            lines, self.lines = self.lines, []
            if lines:
                self._file.write(b"".join(lines))


class Request:
    """The calls of one request, and the task that waits for them."""

    __slots__ = ("failure", "left", "task", "values")

    def __init__(self, count: int) -> None:
        self.left = count
        self.values: list[Any] = [None] * count
        self.failure: Exception | None = None
        self.task: trio.lowlevel.Task | None = None

    def ended(self, failure: Exception | None = None) -> None:
        self.left -= 1
        self.failure = self.failure or failure
        if (not self.left or failure) and self.task is not None:
            task, self.task = self.task, None
            reschedule(task)

    async def wait(self) -> None:
        if self.left and self.failure is None:
            self.task = current_task()
            await wait_task_rescheduled(self._abort)
        if self.failure is not None:
            raise self.failure

    def _abort(self, _: object) -> Abort:
        self.task = None
        return Abort.SUCCEEDED


class Upstream:
    """The connections to one address, which one task reads through one epoll."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._head = b"GET /item/3 HTTP/1.1\r\nHost: %b:%d\r\nAccept: application/json\r\n\r\n" % (host.encode(), port)
        self._epoll = select.epoll()
        self._idle: list[socket.socket] = []
        self._waiting: dict[int, tuple[socket.socket, Request, int, bytes]] = {}

    async def run(self) -> None:
        while True:
            await wait_readable(self._epoll.fileno())
            for number, _ in self._epoll.poll(0, 64):
                self._read(number)

    def call(self, request: Request, place: int) -> None:
        connection = self._idle.pop() if self._idle else self._dialled()
        self._waiting[connection.fileno()] = (connection, request, place, b"")
        connection.send(self._head)

    def give_up(self, request: Request) -> None:
        for number, (connection, whose, *_) in [*self._waiting.items()]:
            if whose is request:
                del self._waiting[number]
                connection.close()

    def _dialled(self) -> socket.socket:
        connection = socket.create_connection(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._epoll.register(connection, select.EPOLLIN)
        return connection

    def _read(self, number: int) -> None:
        if number not in self._waiting:
            # An idle connection was closed.
            gone = next(each for each in self._idle if each.fileno() == number)
            self._idle.remove(gone)
            gone.close()
            return
        connection, request, place, data = self._waiting[number]
        try:
            received = connection.recv(RECEIVE_MAX)
        except OSError:
            received = b""
        data += received
        head = HEAD.match(data)
        length = LENGTH.search(data, 0, head.end()) if head is not None else None
        if received and (head is None or length is None or len(data) < head.end() + int(length[1])):
            self._waiting[number] = (connection, request, place, data)
            return
        del self._waiting[number]
        if head is None or length is None or head[1] != b"200" or len(data) != head.end() + int(length[1]):
            connection.close()
            request.ended(Failed())
            return
        self._idle.append(connection)
        request.values[place] = decode(data[head.end() :])
        request.ended()


async def answered(upstream: Upstream, log: Log, count: int) -> bytes:
    began = time.perf_counter()
    request = Request(count)
    status, reason = 200, b"OK"
    try:
        with trio.fail_after(DEADLINE_S):
            for place in range(count):
                upstream.call(request, place)
            await request.wait()
        body = encode({f"c{place}": value for place, value in enumerate(request.values)})
    except (Failed, trio.TooSlowError):
        upstream.give_up(request)
        status, reason, body = 502, b"Bad Gateway", b"{}"
    took = (time.perf_counter() - began) * 1000
    log.lines.append(b'{"path":"/n%d","status":%d,"duration_ms":%.3f}\n' % (count, status, took))
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, reason, len(body)) + body


async def serve(client: trio.SocketStream, upstream: Upstream, log: Log) -> None:
    data = b""
    async with client:
        while received := await client.receive_some(RECEIVE_MAX):
            data += received
            while (end := data.find(b"\r\n\r\n") + 4) >= 4:
                target, data = TARGET.match(data), data[end:]
                if target is None:
                    await client.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                else:
                    await client.send_all(await answered(upstream, log, int(target[1])))
            if len(data) > HEAD_MAX:
                return


async def main() -> None:
    where = urlsplit(os.environ["UPSTREAM"])
    upstream, log = Upstream(where.hostname or "127.0.0.1", where.port or 80), Log(os.environ["LOG"])

    async def handler(client: trio.SocketStream) -> None:
        try:
            await serve(client, upstream, log)
        except trio.BrokenResourceError:
            return  # The client has gone.

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream.run)
        await trio.serve_tcp(handler, int(os.environ["PORT"]), host="127.0.0.1", backlog=512)


if __name__ == "__main__":
    trio.run(main)
