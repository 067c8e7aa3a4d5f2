"""The gateway for third-party clients: routes that answer at once, a stream, a route that hangs, a WebSocket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from quart import websocket

from tests.support.gateway.program import Program, route, running, up
from umbel.gateway.app import Umbel


def configuration(upstream: int) -> str:
    nothing = "when = '`false`'"
    return (
        '[logs.access]\nfile = "access.jsonl"\n[compress]\n'
        + up(upstream)
        + route("/r", call=nothing, answer='shape = "{a: `1`}"')
        + route("/echo", keys='methods = ["POST"]', call=nothing, answer='shape = "{got: body}"')
        + route("/stream", "/quick", keys='stream = true\ndeadline = "20s"')
        + '[routes.calls.late]\nupstream = "up"\npath = "/late"\n'
        + route("/hangs", "/hangs", keys='deadline = "50s"')
    )


class Upstream:
    """An upstream that answers at once, except ``/late`` (after the event ``late``) and ``/hangs`` (never)."""

    def __init__(self) -> None:
        self.late = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += (piece := await stream.receive_some())
            if not piece:
                return
        if b"/hangs" in received:
            await stream.receive_some()  # returns when the cancelled call closes its connection
            return
        if b"/late" in received:
            await self.late.wait()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
        await stream.send_all(head + b"42")


def _echo(app: Umbel) -> None:
    @app.websocket("/socket")
    async def socket() -> None:
        while True:
            await websocket.send(await websocket.receive())


@asynccontextmanager
async def site(
    directory: Path, *, more: Callable[[Umbel], object] | None = None, **settings: Any
) -> AsyncIterator[tuple[Program, Upstream]]:
    """Run the gateway and its upstream. After the block no call and no task of a request may be left.

    ``more`` registers further views of the application; ``settings`` are Hypercorn's.
    """

    def prepare(app: Umbel) -> None:
        _echo(app)
        if more is not None:
            more(app)

    upstream = Upstream()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        text = configuration(listener.socket.getsockname()[1])
        async with running(directory, text, prepare=prepare, **settings) as program:
            yield program, upstream
        nursery.cancel_scope.cancel(reason="the test has ended")
