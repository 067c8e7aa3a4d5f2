"""Applications served on a free port of loopback within a test's nursery, and a client that keeps every byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import h11
import hypercorn.trio
import trio
from hypercorn.config import Config

from tests.support.logs.records import Records
from umbel.gateway.app import Umbel
from umbel.server import hypercorn_config, serve


def app_with_records() -> tuple[Umbel, Records]:
    """An application that answers ``/hello`` with "hello", and its recorder."""
    records = Records()
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    return app, records


def add_waiting_handler(app: Umbel) -> tuple[trio.Event, trio.Event]:
    """Add the route ``/work``. It sets the first event at a request, and answers "done" once the second is set."""
    began, go = trio.Event(), trio.Event()

    @app.get("/work")
    async def work() -> str:
        began.set()
        await go.wait()
        return "done"

    return began, go


@asynccontextmanager
async def serving(app: Any, *, stock: bool = False, **settings: Any) -> AsyncIterator[int]:
    """Serve ``app`` within the block, with Umbel's ``serve`` or (``stock``) Hypercorn's; yield its port.

    ``settings`` are Hypercorn's.
    """
    config = hypercorn_config(bind=["127.0.0.1:0"])
    if stock:
        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.loglevel = "ERROR"
    config.graceful_timeout = 1.0
    for name, value in settings.items():
        setattr(config, name, value)
    stop = trio.Event()
    run = partial(hypercorn.trio.serve if stock else serve, app, config, shutdown_trigger=stop.wait)
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(run)
        try:
            yield int(address.rpartition(":")[2])
        finally:
            stop.set()


@dataclass
class Reply:
    """One received response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __getitem__(self, name: str) -> str:
        """The value of a header field that must be there exactly once."""
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class RawClient:
    """One HTTP/1.1 connection. The client writes requests itself and parses responses with h11."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""
        """Every byte received so far."""
        self._h11 = h11.Connection(h11.CLIENT)

    async def request(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> Reply:
        await self.send(method, target, headers, body)
        return await self.reply(method)

    async def send(self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        fields = [("host", "gateway.test"), *headers]
        if body:
            fields.append(("content-length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        await self.stream.send_all(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)

    async def reply(self, method: str = "GET") -> Reply:
        # h11 is given a request of this method, since the method decides whether the response has a body.
        self._h11.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._h11.send(h11.EndOfMessage())
        reply: Reply | None = None
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                reply = Reply(event.status_code, [(n.decode(), v.decode("latin-1")) for n, v in event.headers])
            elif isinstance(event, h11.Data):
                assert reply is not None
                reply.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert reply is not None
                if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                    self._h11.start_next_cycle()
                return reply
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("the server closed the connection before its response")

    async def event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            data = await self.stream.receive_some()
            self.received += data
            self._h11.receive_data(data)
        return event

    async def closed_by_server(self) -> bool:
        """Wait until the server closes the connection; return False if it sends another byte first."""
        try:
            return await self.stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawClient]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield RawClient(stream)


async def fetch(
    port: int, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> Reply:
    async with connected(port) as client:
        return await client.request(method, target, headers, body)
