"""POSTs at a pace that meets the idle timeout of their upstream, 25 ms away: none is lost to an idle connection.

200 clients of ``umbel serve`` send 10,000 POSTs, in bursts (so that each takes a connection of the same age) and
spread. Their pauses lie around the idle time at which the upstream closes. ``make soak`` sends them to each server,
``make test`` a tenth of them to one.
"""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from tests.support.process.launched_workers import commanded, launched
from tests.support.soak import SOAK
from tests.support.upstream.delay_relay import Relay, delaying
from tests.support.upstream.idle_closing_server import far_server
from tests.support.upstream.raw_server import RawServer

CLIENTS = 200
POSTS = 10_000 if SOAK else 1_000
ROUNDS = POSTS // CLIENTS
ONE_WAY = 0.0125
NEAR = 0.06
"""Seconds around the idle timeout in which half of all pauses end."""

CONFIG = """
[upstreams.u]
urls = ["http://127.0.0.1:{port}"]
max_concurrency = 400
[[routes]]
path = "/r"
methods = ["POST"]
deadline = "20s"
[routes.calls.part]
upstream = "u"
method = "POST"
path = "/"
json = "`1`"
"""
LONG_KEEP_ALIVE = "keep_alive_timeout = 600\n"
"""Connections of clients are not what is tested."""
REQUEST = b"POST /r HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_BENCH = Path(__file__).parents[3] / ".bench" / "bin"

NODE = """
const server = require("http").createServer((request, response) => {
  request.resume().on("end", () => response.end("{}"));
});
server.listen({port: 0, host: "127.0.0.1", backlog: 4096}, () =>
  console.log(`Running on http://127.0.0.1:${server.address().port}`));
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
"""
WSGI = """
def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]
"""


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Relay]:
    """Node's HTTP server: an idle timeout of 5 s, announced in Keep-Alive."""
    command = shutil.which("node")
    if command is None:
        pytest.skip("there is no node")
    with commanded([command, "-e", NODE], folder) as server:
        async with delaying(server.port, ONE_WAY) as relay:
            yield relay


@asynccontextmanager
async def uvicorn(folder: Path) -> AsyncIterator[Relay]:
    """An idle timeout of 5 s, not announced."""
    _write(folder, ASGI)
    with commanded([_peer("uvicorn"), "served:app", "--port", "0", "--no-access-log"], folder) as server:
        async with delaying(server.port, ONE_WAY) as relay:
            yield relay


@asynccontextmanager
async def gunicorn(folder: Path) -> AsyncIterator[Relay]:
    """An idle timeout of 2 s, not announced."""
    _write(folder, WSGI)
    command = [
        _peer("gunicorn"),
        "served:app",
        "-k",
        "gthread",
        "--threads",
        "32",
        "-b",
        "127.0.0.1:0",
        "--no-control-socket",
    ]
    with commanded(command, folder) as server:
        async with delaying(server.port, ONE_WAY) as relay:
            yield relay


def _write(folder: Path, program: str) -> None:
    folder.mkdir()
    (folder / "served.py").write_text(program)


def _peer(name: str) -> str:
    command = _BENCH / name
    found = str(command) if command.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: make soak installs it into .bench")
    return found


@asynccontextmanager
async def raw(idle: float, folder: Path, *, hint: bytes = b"") -> AsyncIterator[RawServer]:
    """Umbel's server, with or without an announced idle timeout."""
    async with far_server(idle, ONE_WAY, hint=hint) as server:
        yield server


class Upstream(NamedTuple):
    """A server and its idle timeout in seconds."""

    idle: float
    serve: Callable[[Path], AbstractAsyncContextManager[Relay | RawServer]]


UPSTREAMS = {
    "raw, 1 s": Upstream(1.0, partial(raw, 1.0)),
    "raw, 2 s": Upstream(2.0, partial(raw, 2.0)),
    "raw, 5 s": Upstream(5.0, partial(raw, 5.0)),
    "raw, 2 s, and says so": Upstream(2.0, partial(raw, 2.0, hint=b"Keep-Alive: timeout=2")),
    "node": Upstream(5.0, node),
    "uvicorn": Upstream(5.0, uvicorn),
    "gunicorn": Upstream(2.0, gunicorn),
}


async def post(stream: trio.SocketStream) -> bytes:
    """Send one POST on a client's connection; return the whole response."""
    await stream.send_all(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive_some() or b"HTTP/1.1 000 closed\r\nContent-Length: 0\r\n\r\n"
    head, _, body = answer.partition(b"\r\n\r\n")
    found = _LENGTH.search(head + b"\r\n")
    assert found is not None, head
    while len(body) < int(found[1]):
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


async def in_rounds(port: int, idle: float, rng: random.Random) -> Counter[bytes]:
    """Send one POST of each client in each round; count the responses by status line."""
    counted: Counter[bytes] = Counter()

    async def one(stream: trio.SocketStream, after: float) -> None:
        await trio.sleep(after)
        answer = await post(stream)
        status = answer.partition(b"\r\n")[0]
        counted[status if status.startswith(b"HTTP/1.1 200") else answer] += 1

    async with AsyncExitStack() as stack:
        opened = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(CLIENTS)]
        streams = [await stack.enter_async_context(stream) for stream in opened]
        for number in range(ROUNDS):
            near = rng.random() < 0.5
            if number:  # A connection without a first request is closed.
                await trio.sleep(idle + rng.uniform(-NEAR, NEAR) if near else idle * rng.uniform(0.5, 1.0))
            spread = 0.0 if number % 2 else 0.25 * idle
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(one, stream, rng.uniform(0, spread))
    return counted


@pytest.mark.parametrize("name", UPSTREAMS if SOAK else ["raw, 1 s"])
async def test_no_post_is_lost_to_an_idle_connection(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = UPSTREAMS[name]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    async with upstream.serve(tmp_path / "upstream") as server:
        config = CONFIG.format(port=int(server))
        with launched("umbel serve", tmp_path / "gateway", config, settings=LONG_KEEP_ALIVE) as gateway:
            counted = await in_rounds(gateway.port, upstream.idle, random.Random(seed))
    made = len(server.connections) if isinstance(server, RawServer) else server.taken
    with capsys.disabled() if SOAK else nullcontext():
        print(f"{name}: {counted.total()} POSTs over {made} connections: {dict(counted)}")
    assert counted == {b"HTTP/1.1 200 OK": POSTS}
